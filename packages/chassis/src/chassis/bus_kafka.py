"""A Kafka consumer group member whose true position lives with the data it writes.

The handler stores, in its own transaction, where each partition is to be read next (compared and set), so Kafka's
committed offsets are only a hint for lag displays. After any failure the member looks up where it stands and seeks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from chassis import bus_records
from chassis.bus import AWAY_S, Fenced, close
from chassis.bus_places import Places, Positions, Slice
from chassis.health import Health
from chassis.pace import pause_s
from chassis.telemetry import get_logger

POLL_MS, HINT_S = 200, 1.0
AT_ONCE, MOST_POLLED = 100, 16 << 20  # records; bytes of a batch, which so many records may go over
# A client asks a broker once at a time: a partition that was busy waits until the idle ones of the last question have answered.
WAIT_MS = 50
METADATA_MS = 10_000  # how soon a topic that was made anew is noticed
PART, BROKER = "consumer", "kafka"
Handler = Callable[[Sequence[Slice]], Awaitable[None]]
log = get_logger("bus")
bus_records.install()


@dataclass(frozen=True, slots=True)
class GroupMember:
    """Who this consumer is. A stable `instance_id` lets a restarted member take its partitions back at once."""

    bootstrap: str
    group: str
    topics: tuple[str, ...]
    instance_id: str | None = None
    max_records: int = 2000
    session_timeout_ms: int = 10_000


class BatchConsumer:
    """Feeds batches to `handle`, at least once; `handle` raises Fenced when another member went past it."""

    def __init__(self, member: GroupMember, *, positions: Positions, handle: Handler, health: Health) -> None:
        self._member, self._handle, self._health = member, handle, health
        self._places = Places(positions, health)
        self._busy = asyncio.Lock()
        self._failures = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, coming back after every failure."""
        while not stop.is_set():
            try:
                await self._session(stop)
            except (KafkaError, OSError) as error:
                self._failures += 1
                failures = self._failures
                log.warning("bus_session_failed", error=type(error).__name__, failures=failures)
                if failures > 1:
                    self._health.trouble(PART, f"Kafka: {type(error).__name__}")
                self._health.beat(PART)
                await asyncio.sleep(pause_s(failures, base_s=0.1, most_s=5.0))
        self._health.end(PART)

    async def _session(self, stop: asyncio.Event) -> None:
        member = self._member
        consumer = AIOKafkaConsumer(
            bootstrap_servers=member.bootstrap,
            group_id=member.group,
            group_instance_id=member.instance_id,
            enable_auto_commit=False,
            auto_offset_reset="none",  # where to read is never the client's to choose
            isolation_level="read_committed",  # what a producer took back was never published
            session_timeout_ms=member.session_timeout_ms,
            heartbeat_interval_ms=max(200, member.session_timeout_ms // 4),
            max_partition_fetch_bytes=4 * 1024 * 1024,
            fetch_max_wait_ms=WAIT_MS,
            metadata_max_age_ms=METADATA_MS,
        )
        consumer.subscribe(member.topics, listener=_Listener(consumer, self._places, self._busy))
        try:
            await consumer.start()
            hinted = time.monotonic()
            while not stop.is_set():
                self._health.beat(PART)
                await self._turn(consumer)
                if time.monotonic() - hinted > HINT_S:
                    hinted = time.monotonic()
                    self._places.measure(consumer, time.time_ns() // 1_000_000)
                    await self._hint(consumer)
        finally:
            self._places.leave()
            self._health.fine(BROKER)
            await close(consumer)

    async def _turn(self, consumer: AIOKafkaConsumer) -> None:
        """Poll once and hand on what came. What fails is taken again, from where the data says it is."""
        try:
            async with self._busy:
                await self._places.place(consumer)
            found = await self._poll(consumer)
            async with self._busy:
                slices = await self._places.slices(consumer, found)
                if slices:
                    await self._handle(slices)
                    self._places.advance(slices)
        except Fenced:
            log.warning("bus_fenced")
            self._places.displace()
        except KafkaError:
            raise
        except Exception as error:
            log.error("bus_batch_failed", error=type(error).__name__, detail=str(error)[:500])
            self._health.trouble(PART, f"a batch fails again and again: {type(error).__name__}")
            self._places.displace()
            await asyncio.sleep(pause_s(1, base_s=0.5, most_s=1.0))
        else:
            self._failures = 0
            self._health.fine(PART)

    async def _poll(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, list[Any]]:
        """What came, bounded by number and, because a few kilobytes may unpack to very many, by bytes."""
        found: dict[TopicPartition, list[Any]] = {}
        count, size, wait_ms = 0, 0, POLL_MS
        while count < self._member.max_records and size < MOST_POLLED:
            most = min(AT_ONCE, self._member.max_records - count)
            part = await consumer.getmany(timeout_ms=wait_ms, max_records=most)
            if not any(part.values()):
                break
            for tp, records in part.items():
                found.setdefault(tp, []).extend(records)
                count, size = count + len(records), size + sum(map(bus_records.weight, records))
            wait_ms = 0
        return found

    async def _hint(self, consumer: AIOKafkaConsumer) -> None:
        """Also how a broker that is away is noticed: a poll just finds nothing then, and a commit waits for ever."""
        owned = {tp: offset for tp, offset in self._places.running().items() if tp in consumer.assignment()}
        if owned:
            try:
                async with asyncio.timeout(AWAY_S):
                    await consumer.commit(owned)
            except TimeoutError:
                self._health.trouble(BROKER, "no broker answers")
                return
            except KafkaError as error:
                log.info("bus_hint_refused", error=type(error).__name__)
            self._health.fine(BROKER)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, consumer: AIOKafkaConsumer, places: Places, busy: asyncio.Lock) -> None:
        self._consumer, self._places, self._busy = consumer, places, busy

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Wait for the batch in work: its transaction is the last word on those partitions."""
        async with self._busy:
            self._places.revoke(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """They start where the data says, whatever Kafka remembers."""
        self._places.assign(self._consumer, assigned)
