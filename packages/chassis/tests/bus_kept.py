"""A consumer whose positions are in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from chassis.bus_kafka import BatchConsumer, GroupMember
from chassis.bus_places import EARLIEST, Name, Position, Slice
from chassis.health import Health
from devstack.kafka import Kafka


class Kept:
    """Positions in memory, and every value that was handed on."""

    def __init__(self) -> None:
        self.at: dict[Name, Position] = {}
        self.values: list[bytes | None] = []
        self.before: Callable[[Sequence[Slice]], Awaitable[None]] | None = None

    async def read(self, partitions: Sequence[Name]) -> Mapping[Name, Position]:
        return {name: self.at.setdefault(name, Position(EARLIEST)) for name in partitions}

    async def found(self, partition: Name, first: int) -> None:
        if self.at[partition].next_offset == EARLIEST:
            self.at[partition] = Position(first)

    async def halt(self, partition: Name, at: int, cause: str) -> None:
        if self.at[partition].next_offset == at:
            self.at[partition] = replace(self.at[partition], halted=cause)

    async def handle(self, slices: Sequence[Slice]) -> None:
        if self.before is not None:
            await self.before(slices)
        for step in slices:
            assert self.at[step.topic, step.partition].next_offset == step.expected
            place, last = self.at[step.topic, step.partition], step.records[-1].timestamp_ms if step.records else -1
            known = place.last_ms if not step.records else last if last >= 0 else None
            self.at[step.topic, step.partition] = Position(step.next_offset, known)
            self.values += [r.value for r in step.records]


@contextlib.asynccontextmanager
async def consuming(kafka: Kafka, topic: str, kept: Kept, health: Health | None = None) -> AsyncIterator[None]:
    member = GroupMember(kafka.bootstrap, f"g-{topic}", (topic,), session_timeout_ms=2000)
    consumer = BatchConsumer(member, positions=kept, handle=kept.handle, health=health or Health())
    stop = asyncio.Event()
    running = asyncio.ensure_future(consumer.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def until(check: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.02)
