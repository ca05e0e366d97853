"""Whose turn it is: so many at a time of each key, in the order they came. Who waits holds nothing that others need."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from chassis.problems import Problem


def busy() -> Problem:
    """What to answer who would have to wait for too long."""
    return Problem("busy", 503, "Too much like this is being done; try again", headers={"retry-after": "2"})


class Turns:
    """`at_once` of a key go on together, up to `waiting` more wait, each for `patience_s` at most."""

    def __init__(self, at_once: int, *, waiting: int, patience_s: float) -> None:
        self._at_once, self._most, self._patience_s = at_once, at_once + waiting, patience_s
        self._here: Counter[Hashable] = Counter()
        self._places: dict[Hashable, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def of(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for a turn, and have it. Raises Problem 503 busy when too many wait, or it does not come."""
        if self._here[key] >= self._most:
            raise busy()
        self._here[key] += 1
        try:
            places = self._places.setdefault(key, asyncio.Semaphore(self._at_once))
            await self._wait(places)
            try:
                yield
            finally:
                places.release()
        finally:
            self._here[key] -= 1
            if not self._here[key]:
                del self._here[key], self._places[key]

    async def _wait(self, places: asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await places.acquire()
        except TimeoutError:
            raise busy() from None
