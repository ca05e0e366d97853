"""Where partitions are, for tests without a database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from chassis.bus_places import EARLIEST, Name, Position, Slice


class Kept:
    """Positions in memory, and every value that was handed on."""

    def __init__(self) -> None:
        self.at: dict[Name, Position] = {}
        self.values: list[bytes | None] = []
        self.before: Callable[[Sequence[Slice]], Awaitable[None]] | None = None

    async def read(self, partitions: Sequence[Name]) -> Mapping[Name, Position]:
        return {name: self.at.setdefault(name, Position(EARLIEST)) for name in partitions}

    async def found(self, partition: Name, old: int, new: int) -> None:
        if self.at[partition].next_offset == old:
            self.at[partition] = Position(new)

    async def halt(self, partition: Name, at: int, cause: str) -> None:
        if self.at[partition].next_offset == at:
            self.at[partition] = replace(self.at[partition], halted=cause)

    async def handle(self, slices: Sequence[Slice]) -> None:
        if self.before is not None:
            await self.before(slices)
        for step in slices:
            assert self.at[step.topic, step.partition].next_offset == step.expected
            last = step.records[-1].timestamp_ms if step.records else -1
            self.at[step.topic, step.partition] = Position(step.next_offset, last if last >= 0 else None)
            self.values += [r.value for r in step.records]
