"""Called by the gateway's clock: content-svc has a copy of the list of kills, on disk, for when Redis and all gateways have lost
theirs. It is in a loop of its own, so that who does not answer is in nobody's way.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
from chassis.cache import FAR
from chassis.health import Health
from chassis.schemas import MOST_KILLED_ASKED
from chassis.service import FOLLOW_S, repeat

from gateway.adapters.upstreams import CONTENT, Upstreams
from gateway.domain import kills

LOOK_S, PATIENCE_S = 1.0, 1.0
PATH = "/v1/kills"


class KillsKept:
    """The copy of content-svc, as it said last, and ours, which it is to have."""

    def __init__(self, upstreams: Upstreams, health: Health) -> None:
        self._upstreams, self._health = upstreams, health
        self.said: kills.Copy | None = None
        self._ours = self._taken = kills.NONE
        self._changed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Compare, and hand over, until `stop` is set."""
        name, wake = "watch kills kept", self._changed
        await repeat(self.look, stop, name=name, idle_s=LOOK_S, health=self._health, wake=wake, most_s=FOLLOW_S)

    async def look(self) -> bool:
        """Hand over ours when it is another one, of which nothing is missing here: so it is, too, after the database went back.

        Raises httpx.HTTPError when that cannot be done.
        """
        self.said = await self._ask("GET")
        ours = self._ours
        if ours.list and not self.has(ours) and not self.news().has_more_than(ours):
            over = dict(zip(("list", "number", "last"), self.said.mark, strict=True))
            self.said = await self._ask("PUT", json={**msgspec.to_builtins(ours), "over": over})
            if not self.has(ours):
                raise httpx.DecodingError("another list is kept")
        return False

    async def _ask(self, method: str, **body: Any) -> kills.Copy:
        found = await self._upstreams.json(CONTENT, method, PATH, kills.Copy, most_s=PATIENCE_S, **body)
        if found.number - self._ours.number > FAR or len(found.names) > MOST_KILLED_ASKED:
            raise httpx.DecodingError("a list that is none of ours")
        return found

    def news(self) -> kills.Copy:
        """What content-svc has, as long as it was not taken in."""
        return kills.NONE if self.said is None or self.said.mark == self._taken.mark else self.said

    def took_in(self, copy: kills.Copy) -> None:
        """The list has all of a copy."""
        if copy is self.said:
            self._taken = copy

    def hand_over(self, ours: kills.Copy) -> None:
        """Have content-svc keep it, soon, and for sure."""
        if ours.mark != self._ours.mark:
            self._changed.set()
        self._ours = ours

    def has(self, ours: kills.Copy) -> bool:
        """Whether content-svc keeps it."""
        return self.said is not None and self.said.mark == ours.mark
