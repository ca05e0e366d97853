"""Kafka to the flow: topics, the decoder and apply_events. Called by the worker's consumer loop per batch."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.bus import ensure_topics
from chassis.bus_kafka import BatchConsumer, GroupMember, Slice
from contracts import topics

from segment_svc import store, wire
from segment_svc.deps import Deps
from segment_svc.flows.apply_events import apply_events
from segment_svc.settings import Settings
from segment_svc.store import Advance
from segment_svc.telemetry import DEAD, FRESHNESS

TOPICS = (topics.STOREFRONT_BROWSE, topics.STOREFRONT_CART, topics.COMMERCE_ORDER, topics.COMMERCE_CUSTOMER)


async def create_topics(settings: Settings) -> None:
    """Every topic of the catalogue that is missing, for installations whose Kafka nobody else looks after."""
    await ensure_topics(settings.kafka_bootstrap, topics.PARTITIONS)


def consumer(deps: Deps, settings: Settings) -> BatchConsumer:
    """The group member of this process."""

    async def positions(partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        async with deps.db.tx() as tx:
            return await store.positions(tx, partitions)

    async def handle(slices: Sequence[Slice]) -> None:
        records = [record for piece in slices for record in piece.records]
        incoming, dead = wire.decode(deps.codec, records, now=deps.clock.now_ms())
        steps = [Advance(s.topic, s.partition, s.expected, s.next_offset) for s in slices]
        await apply_events(deps, incoming, steps, dead=dead)
        now = deps.clock.now_ms()
        for letter in dead:
            DEAD.labels(reason=letter.reason).inc()
        if records:
            FRESHNESS.observe(max(0, now - records[-1].timestamp_ms) / 1000)

    member = GroupMember(
        bootstrap=settings.kafka_bootstrap,
        group=settings.group,
        topics=TOPICS,
        instance_id=settings.instance_id or None,
        max_records=settings.max_records,
        session_timeout_ms=settings.session_timeout_ms,
    )
    return BatchConsumer(member, positions=positions, handle=handle)
