"""Kafka to the flow: topics, and ingest per poll. Called by the worker's consumer loop."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.bus import ensure_topics
from chassis.bus_kafka import BatchConsumer, GroupMember
from chassis.bus_places import Slice
from contracts import topics

from segment_svc.deps import Deps
from segment_svc.flows.ingest import Ingest
from segment_svc.positions import StoredPositions
from segment_svc.settings import Settings
from segment_svc.telemetry import FRESHNESS

TOPICS = (topics.STOREFRONT_BROWSE, topics.STOREFRONT_CART, topics.COMMERCE_ORDER, topics.COMMERCE_CUSTOMER)


async def create_topics(settings: Settings) -> None:
    """Every topic of the catalogue that is missing, for installations whose Kafka nobody else looks after."""
    await ensure_topics(settings.kafka_bootstrap, topics.SHAPES)


def consumer(deps: Deps, settings: Settings) -> BatchConsumer:
    """The group member of this process."""

    ingest = Ingest(deps, logged=True)

    async def handle(slices: Sequence[Slice]) -> None:
        await ingest(slices)
        last = [step.records[-1] for step in slices if step.records]
        if last:
            FRESHNESS.observe(max(0, deps.clock.now_ms() - last[-1].timestamp_ms) / 1000)

    member = GroupMember(
        bootstrap=settings.kafka_bootstrap,
        group=settings.group,
        topics=TOPICS,
        instance_id=settings.instance_id or None,
        max_records=settings.max_records,
        session_timeout_ms=settings.session_timeout_ms,
    )
    return BatchConsumer(member, positions=StoredPositions(deps.db), handle=handle, health=deps.health)
