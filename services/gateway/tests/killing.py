"""A gateway as far as kills go, at a real Redis, and what content-svc keeps of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
from chassis.auth import Actor
from chassis.clock import ManualClock
from chassis.health import Health
from gateway.domain.kills import Kill
from gateway.flows.kill import Killer
from gateway.flows.kills_kept import KillsKept
from gateway.flows.knowledge import Knowledge

ANN = Actor("ann", "marketer")
NOW_MS = 1_800_000_000_000
KILL = Kill(ANN.subject, NOW_MS)


class Purger:
    """No edge has anything to forget."""

    def owe(self, tags: Any) -> None:
        """Nothing."""

    def owing(self) -> list[str]:
        """Nobody."""
        return []


class Content:
    """content-svc: what it keeps, or what it says instead of that; away while it is None."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {"list": "", "number": 0, "last": "", "names": {}}
        self.says: Any = self.kept
        self.asked = list[str]()

    async def json(self, service: str, method: str, path: str, shape: Any, **more: Any) -> Any:
        assert (service, path) == ("content-svc", "/v1/kills")
        self.asked.append(method)
        if self.says is not self.kept:
            return self._said(self.says, shape)
        if method == "PUT":
            given = dict(more["json"])
            over = given.pop("over")
            if over == {name: self.kept[name] for name in over}:
                self.says = self.kept = given
        return self._said(self.kept, shape)

    def _said(self, found: Any, shape: Any) -> Any:
        if found is None:
            raise httpx.ConnectError("away")
        try:
            return msgspec.convert(found, shape)
        except msgspec.ValidationError as error:
            raise httpx.DecodingError(str(error)) from None

    def back(self) -> None:
        """It says again what it keeps."""
        self.says = self.kept


class Gateway:
    """One of several."""

    def __init__(self, redis: Any, content: Content | None = None, owners: Any = None) -> None:
        purger: Any = Purger()
        said: Any = content or Content()
        self.knowledge, self.health = Knowledge(), Health()
        self.kept = KillsKept(said, self.health)
        clock = ManualClock(NOW_MS)
        self.killer = Killer(self.knowledge, redis, owners, purger, clock, self.health, kept=self.kept)

    async def look(self) -> frozenset[str]:
        """What it knows to be killed, once there is no more to do at once."""
        with contextlib.suppress(httpx.HTTPError):
            await self.kept.look()
        while await self.killer.look():
            pass
        return self.knowledge.kills

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """By the clock."""
        stop = asyncio.Event()
        loops = asyncio.gather(self.kept.run(stop), self.killer.run(stop))
        yield
        stop.set()
        await loops

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.05)

    async def settle(self) -> frozenset[str]:
        """The same, when it was told, and has told, what there is."""
        await self.look()
        return await self.look()
