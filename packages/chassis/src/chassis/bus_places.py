"""Where a consumer stands in its partitions: the offset that lives with the data, held against what Kafka has.

A partition of which Kafka no longer has what is to be read next (retention was faster), or of which it has other records than
those read before (the topic was made anew), is halted, loudly, until somebody chooses where to go on: what to do with
a gap is nothing a program knows.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from chassis.bus import Record
from chassis.health import Health
from chassis.telemetry import HALTED, LAG, LAG_SECONDS

EARLIEST = -2  # as Kafka's own protocol writes it; what else is chosen is an offset, or records could come between
LOOK_S, LATE_S = 2.0, 60.0
GAP = "gap: Kafka no longer has the next record"
REPLACED = "replaced: the topic is not the one that was read before"
Name = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Position:
    """The offset to be read next (or EARLIEST), and the time of the record before it (epoch ms), if known.

    `halted`: why nobody may read on, until somebody chose where.
    """

    next_offset: int
    last_ms: int | None = None
    halted: str | None = None


class Positions(Protocol):
    """Where the positions are kept."""

    async def read(self, partitions: Sequence[Name]) -> Mapping[Name, Position]:
        """The position of each; one never seen is EARLIEST."""
        ...

    async def found(self, partition: Name, first: int) -> None:
        """Replace EARLIEST by the offset it turned out to be, unless it was changed meanwhile."""
        ...

    async def halt(self, partition: Name, at: int, cause: str) -> None:
        """Remember that a partition is halted, for whoever owns it next, unless it was changed from `at` meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class Slice:
    """Records of one partition, and the step over them: read from `expected`, next to be read is `next_offset`.

    Without records it is a step over marks of transactions: what was read last is what it was.
    """

    topic: str
    partition: int
    expected: int
    next_offset: int
    records: Sequence[Record]

    def cut(self, count: int) -> tuple[Slice, Slice]:
        """Two steps over the same records, the first over `count` of them, which leaves at least one for the second."""
        at = self.records[count].offset
        first = Slice(self.topic, self.partition, self.expected, at, self.records[:count])
        return first, Slice(self.topic, self.partition, at, self.next_offset, self.records[count:])


@dataclass(slots=True)
class _Place:
    """`next_offset` None: not known. `before_ms`: what the record before must say, while that is still to be looked at.

    `even`: when nothing was left to read, on the process's clock.
    """

    next_offset: int | None = None
    before_ms: int | None = None
    halted: str | None = None
    seen_ms: int = 0
    even: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Places:
    """The partitions a consumer owns."""

    positions: Positions
    health: Health
    _owned: dict[TopicPartition, _Place] = field(default_factory=dict)
    _looked: float = 0.0

    def assign(self, consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]) -> None:
        """New partitions stand still until they are placed. The seek keeps the client from choosing an offset itself."""
        for tp in partitions:
            self._owned[tp] = _Place()
            consumer.seek(tp, 0)
            consumer.pause(tp)

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """They are somebody else's."""
        for tp in partitions:
            self._owned.pop(tp, None)
            self._tell(tp, None)
            for gauge in (LAG, LAG_SECONDS):
                gauge.labels(tp.topic, tp.partition).set(0)

    def leave(self) -> None:
        """All are somebody else's."""
        self.revoke(list(self._owned))

    def displace(self) -> None:
        """Look again where the data says each partition is."""
        for place in self._owned.values():
            place.next_offset = None

    def running(self) -> dict[TopicPartition, int]:
        """The partitions that are read, and where."""
        return {tp: p.next_offset for tp, p in self._owned.items() if p.next_offset is not None}

    async def place(self, consumer: AIOKafkaConsumer) -> None:
        """Place what has no place. Once in a while look again at what was halted, and whether the data says that all others are
        where they are: a database that went back has not what was read since, which nobody would read again before more came.
        """
        asked = {tp: p for tp, p in self._owned.items() if p.next_offset is None and not p.halted}
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            asked = dict(self._owned)  # what is assigned meanwhile has its turn next time
        if not asked:
            return
        stored = await self.positions.read([(tp.topic, tp.partition) for tp in asked])
        lost = [tp for tp, p in asked.items() if stored[tp.topic, tp.partition].next_offset != p.next_offset]
        if not lost:
            return
        first, end = await consumer.beginning_offsets(lost), await consumer.end_offsets(lost)
        for tp in lost:
            await self._put(consumer, tp, stored[tp.topic, tp.partition], first[tp], end[tp])

    async def _put(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, stored: Position, first: int, end: int
    ) -> None:
        place, offset = self._owned[tp], stored.next_offset
        if stored.halted is not None:
            self._stand(consumer, tp, stored.halted)
            return
        if offset == EARLIEST:
            offset = first
            await self.positions.found((tp.topic, tp.partition), offset)
        if offset < first or offset > end:
            await self.halt(consumer, tp, GAP if offset < first else REPLACED, offset)
            return
        if place.halted is not None:
            place.halted = None
            self._tell(tp, None)
        place.next_offset, place.before_ms = offset, stored.last_ms
        look_back = stored.last_ms is not None and offset > first
        consumer.seek(tp, offset - 1 if look_back else offset)
        consumer.resume(tp)

    async def halt(self, consumer: AIOKafkaConsumer, tp: TopicPartition, cause: str, at: int) -> None:
        """Stand still until somebody chooses: what Kafka has may fit again by itself, and be something else."""
        await self.positions.halt((tp.topic, tp.partition), at, cause)
        self._stand(consumer, tp, cause)

    def _stand(self, consumer: AIOKafkaConsumer, tp: TopicPartition, cause: str) -> None:
        place = self._owned[tp]
        place.next_offset, place.halted = None, cause
        consumer.pause(tp)
        self._tell(tp, cause)

    def _tell(self, tp: TopicPartition, cause: str | None) -> None:
        HALTED.labels(tp.topic, tp.partition).set(0 if cause is None else 1)
        self.health.set(f"partition {tp.topic}/{tp.partition}", None if cause is None else f"halted, {cause}")

    async def slices(self, consumer: AIOKafkaConsumer, found: Mapping[TopicPartition, Sequence[Any]]) -> list[Slice]:
        """The steps to take over what was polled."""
        taken = []
        for tp, raw in found.items():
            place = self._owned.get(tp)
            if place is None or place.next_offset is None:
                continue
            expected, before_ms = place.next_offset, place.before_ms
            if raw and raw[0].offset == expected - 1:
                if before_ms is not None and raw[0].timestamp != before_ms:
                    await self.halt(consumer, tp, REPLACED, expected)
                    continue
                raw = raw[1:]
            place.before_ms = None
            if raw:
                records, reached = [_record(r) for r in raw], await consumer.position(tp)
                taken.append(Slice(tp.topic, tp.partition, expected, max(reached, records[-1].offset + 1), records))
        return taken + [step for tp in self.running() if tp not in found and (step := await self._passed(consumer, tp))]

    async def _passed(self, consumer: AIOKafkaConsumer, tp: TopicPartition) -> Slice | None:
        """A step over marks of transactions, which are no records: or retention would seem to have taken something."""
        place = self._owned[tp]
        if place.next_offset is None or tp not in consumer.assignment():
            return None
        reached = await consumer.position(tp)
        if reached >= place.next_offset:
            place.before_ms = None  # before it stands a mark too, of which there is nothing to look at
        return Slice(tp.topic, tp.partition, place.next_offset, reached, []) if reached > place.next_offset else None

    def advance(self, slices: Sequence[Slice]) -> None:
        """The steps were taken."""
        for step in slices:
            place = self._owned.get(TopicPartition(step.topic, step.partition))
            if place is not None:
                place.next_offset = step.next_offset
                place.seen_ms = step.records[-1].timestamp_ms if step.records else place.seen_ms

    def measure(self, consumer: AIOKafkaConsumer, now_ms: int) -> None:
        """How far behind each partition is."""
        for tp, offset in self.running().items():
            # What an open transaction has written cannot be read yet, by nobody's fault here.
            end = consumer.last_stable_offset(tp) or consumer.highwater(tp) or 0
            place, behind = self._owned[tp], max(0, end - offset)
            if not behind:
                place.even = time.monotonic()
            # As old as what was read last, but no longer than there has been something to read.
            since = time.monotonic() - place.even
            seconds = min(since, (now_ms - place.seen_ms) / 1000) if place.seen_ms > 0 else since
            LAG.labels(tp.topic, tp.partition).set(behind)
            LAG_SECONDS.labels(tp.topic, tp.partition).set(seconds)
            late = seconds > LATE_S
            self.health.set(f"partition {tp.topic}/{tp.partition}", f"over {LATE_S:.0f} s behind" if late else None)


def _record(raw: Any) -> Record:
    return Record(raw.topic, raw.key, raw.value, tuple(raw.headers), raw.partition, raw.offset, raw.timestamp)
