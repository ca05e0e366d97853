"""What takes the processor long: done beside the loop, in a few threads of its own, by turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from chassis.problems import Problem

T = TypeVar("T")


class Beside:
    """So many `threads` work at a time, for one owner one piece after the other, in the order they came: nobody waits for all
    that another one asks for. `waiting`: how many pieces of one owner may wait. All work must have bounds of its own."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._threads, self._waiting = ThreadPoolExecutor(threads, thread_name_prefix="beside"), waiting
        self._here: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Lock] = {}

    async def run(self, owner: str, work: Callable[..., T], *args: Any) -> T:
        """What `work(*args)` answers or raises. Raises Problem 503 busy when too many pieces of the owner wait."""
        if self._here[owner] > self._waiting:
            raise Problem("busy", 503, "Too much like this is waiting", headers={"retry-after": "2"})
        self._here[owner] += 1
        # A thread goes on when who asked is gone; until it has ended, it is still the turn of its owner.
        return await asyncio.shield(asyncio.ensure_future(self._in_turn(owner, partial(work, *args))))

    async def _in_turn(self, owner: str, work: Callable[[], T]) -> T:
        try:
            async with self._turns.setdefault(owner, asyncio.Lock()):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._here[owner] -= 1
            if not self._here[owner]:
                del self._here[owner], self._turns[owner]

    def close(self) -> None:
        """What waits is given up, and nobody waits for what is being done."""
        self._threads.shutdown(wait=False, cancel_futures=True)
