"""Whose turn it is: the large carts of one website are evaluated one after the other, beside those of others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.problems import Problem

MOST_WAITING = 8  # of a website: each may take DEAR_CART_S, and they have connections that others need


class Turns:
    """One at a time per website, in the order they came."""

    def __init__(self) -> None:
        self._here: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def of(self, website: str) -> AsyncIterator[None]:
        """Wait for a turn of the website, and have it. Raises Problem 503 busy when too many wait."""
        if self._here[website] > MOST_WAITING:
            raise Problem("busy", 503, "Too many large carts wait", headers={"retry-after": "2"})
        self._here[website] += 1
        try:
            async with self._locks.setdefault(website, asyncio.Lock()):
                yield
        finally:
            self._here[website] -= 1
            if not self._here[website]:
                del self._here[website], self._locks[website]
