"""What takes the processor long: done beside the loop, in a few threads of its own, by turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from chassis.auth import Actor
from chassis.turns import Turns

T = TypeVar("T")


def owner(actor: Actor) -> str:
    """Who takes turns where something is tried that is to be saved: all who may save for the same websites."""
    return " ".join(sorted(actor.websites))


class Beside:
    """So many `threads` work at a time, for one owner one piece after the other: nobody waits for all that another one asks for.
    `waiting` and `patience_s` as of Turns. All work must have bounds of its own."""

    def __init__(self, threads: int, *, waiting: int, patience_s: float) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="beside")
        self._turns = Turns(1, waiting=waiting, patience_s=patience_s)

    async def run(self, owner: str, work: Callable[..., T], *args: Any) -> T:
        """What `work(*args)` answers or raises. Raises Problem 503 busy, see Turns."""
        # A thread goes on when who asked is gone; until it has ended, it is still the turn of its owner.
        return await asyncio.shield(asyncio.ensure_future(self._in_turn(owner, partial(work, *args))))

    async def _in_turn(self, owner: str, work: Callable[[], T]) -> T:
        async with self._turns.of(owner):
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """What waits is given up, and nobody waits for what is being done."""
        self._threads.shutdown(wait=False, cancel_futures=True)
