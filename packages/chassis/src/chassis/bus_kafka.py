"""A Kafka consumer group member whose true position lives with the data it writes.

The handler stores, in its own transaction, where each partition is to be read next (compared and set), so Kafka's
committed offsets are only a hint for lag displays. After any failure the member reads its positions again and seeks.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from chassis.bus import Fenced, Record
from chassis.telemetry import get_logger

POLL_MS = 200
HINT_S = 5.0
log = get_logger("bus")


@dataclass(frozen=True, slots=True)
class Slice:
    """Records of one partition, and the step over them: read from `expected`, next to be read is `next_offset`."""

    topic: str
    partition: int
    expected: int
    next_offset: int
    records: Sequence[Record]


Handler = Callable[[Sequence[Slice]], Awaitable[None]]
Positions = Callable[[Sequence[tuple[str, int]]], Awaitable[dict[tuple[str, int], int]]]


@dataclass(frozen=True, slots=True)
class GroupMember:
    """Who this consumer is. A stable `instance_id` lets a restarted member take its partitions back at once."""

    bootstrap: str
    group: str
    topics: tuple[str, ...]
    instance_id: str | None = None
    max_records: int = 2000
    session_timeout_ms: int = 10_000


class BatchConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """Feeds batches to `handle`, at least once; `handle` raises Fenced when another member went past it."""

    def __init__(self, member: GroupMember, *, positions: Positions, handle: Handler) -> None:
        self._member, self._positions, self._handle = member, positions, handle
        self._next: dict[TopicPartition, int] = {}
        self._busy = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, coming back after every failure."""
        failures = 0
        while not stop.is_set():
            try:
                await self._session(stop)
                failures = 0
            except (KafkaError, OSError) as error:
                failures += 1
                log.warning("bus_session_failed", error=type(error).__name__, failures=failures)
                await asyncio.sleep(min(5.0, 0.1 * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def _session(self, stop: asyncio.Event) -> None:
        member = self._member
        consumer = self._consumer = AIOKafkaConsumer(
            bootstrap_servers=member.bootstrap,
            group_id=member.group,
            group_instance_id=member.instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=member.session_timeout_ms,
            heartbeat_interval_ms=max(200, member.session_timeout_ms // 4),
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
        consumer.subscribe(member.topics, listener=self)
        await consumer.start()
        hinted = time.monotonic()
        try:
            while not stop.is_set():
                found = await consumer.getmany(timeout_ms=POLL_MS, max_records=member.max_records)
                if found:
                    async with self._busy:
                        await self._take(found)
                if time.monotonic() - hinted > HINT_S:
                    hinted = time.monotonic()
                    await self._hint()
        finally:
            self._consumer = None
            await consumer.stop()

    async def _take(self, found: dict[TopicPartition, list[object]]) -> None:
        slices = [
            Slice(tp.topic, tp.partition, self._next[tp], records[-1].offset + 1, [_record(r) for r in records])  # type: ignore[attr-defined]
            for tp, records in found.items()
            if tp in self._next
        ]
        if not slices:
            return
        try:
            await self._handle(slices)
        except Fenced:
            log.warning("bus_fenced", partitions=len(slices))
            await self._seek(self._next)
        except Exception as error:
            log.error("bus_batch_failed", error=type(error).__name__, detail=str(error)[:500])
            await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311 - jitter
            await self._seek(self._next)
        else:
            self._next.update({TopicPartition(s.topic, s.partition): s.next_offset for s in slices})

    async def _seek(self, partitions: Iterable[TopicPartition]) -> None:
        """Go to where the data says each partition is."""
        owned = [tp for tp in partitions if self._consumer and tp in self._consumer.assignment()]
        while owned:
            try:
                stored = await self._positions([(tp.topic, tp.partition) for tp in owned])
                break
            except Exception as error:
                log.warning("bus_positions_unavailable", error=type(error).__name__)
                await asyncio.sleep(0.5)
        else:
            return
        for tp in owned:
            self._next[tp] = stored[tp.topic, tp.partition]
            if self._consumer is not None and tp in self._consumer.assignment():
                self._consumer.seek(tp, self._next[tp])

    async def _hint(self) -> None:
        consumer = self._consumer
        owned = {tp: offset for tp, offset in self._next.items() if consumer and tp in consumer.assignment()}
        if consumer is not None and owned:
            try:
                await consumer.commit(owned)
            except KafkaError as error:
                log.info("bus_hint_refused", error=type(error).__name__)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Wait for the batch in work: its transaction is the last word on those partitions."""
        async with self._busy:
            for tp in revoked:
                self._next.pop(tp, None)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Start where the data says, whatever Kafka remembers."""
        await self._seek(list(assigned))


def _record(raw: object) -> Record:
    return Record(
        raw.topic,  # type: ignore[attr-defined]
        raw.key,  # type: ignore[attr-defined]
        raw.value,  # type: ignore[attr-defined]
        tuple(raw.headers),  # type: ignore[attr-defined]
        raw.partition,  # type: ignore[attr-defined]
        raw.offset,  # type: ignore[attr-defined]
        raw.timestamp,  # type: ignore[attr-defined]
    )
