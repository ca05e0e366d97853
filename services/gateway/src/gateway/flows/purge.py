"""Called when the release was swapped: has every edge forget what is of before. One that is away keeps no other waiting, and
is told when it answers again.

Each gateway purges what it swapped, so that one that was slow cannot bring back what another purged. How far an edge was
purged stands in Redis: a gateway that starts purges what nobody did.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import httpx
from chassis.asking import SHORT, ask
from chassis.cache import number
from chassis.clock import Clock
from chassis.health import Health
from chassis.service import repeat
from redis.exceptions import RedisError

from gateway.adapters.upstreams import MOST_IDLE_S
from gateway.domain.debts import AGAIN_S, Debt, debts_at_least, debts_of, lines
from gateway.domain.release import KINDS
from gateway.domain.tags import of_change
from gateway.telemetry import PURGES

LOOK_S, ANSWER_S = 0.1, 2.0


class Purger:
    """One per gateway: tells every edge of it what is new."""

    def __init__(
        self, edges: Sequence[str], secret: str, websites: Collection[str], redis: Any, clock: Clock, health: Health
    ) -> None:
        limits = httpx.Limits(keepalive_expiry=MOST_IDLE_S)
        self._client = httpx.AsyncClient(timeout=ANSWER_S, limits=limits, headers={"x-purge-key": secret})
        self._websites = websites
        self._edges = [
            _Edge(n, url, _Marks(redis, url), websites, self._client, clock=clock, health=health)
            for n, url in enumerate(edges)
        ]

    def changed(self, kind: int, said: Mapping[str, Any]) -> None:
        """Called with what a service says of itself, when that is new."""
        for edge in self._edges:
            edge.changed(kind, said)

    def owe(self, tags: Sequence[str]) -> None:
        """These are to be purged of every website, at once and once more, whatever is published."""
        for edge in self._edges:
            edge.owe(of_change(tags, self._websites))

    def behind(self) -> list[str]:
        """The edges that have something to forget by now."""
        return [edge.url for edge in self._edges if edge.is_behind]

    def owing(self) -> list[str]:
        """The edges that still have something to forget."""
        return [edge.url for edge in self._edges if edge.owes]

    async def run(self, stop: asyncio.Event) -> None:
        """Pay until `stop` is set."""
        await asyncio.gather(stop.wait(), *(edge.run(stop) for edge in self._edges))

    async def aclose(self) -> None:
        """Close the connections to edges."""
        await self._client.aclose()


class _Marks:
    """Up to which version of each kind an edge is known to have been purged, for the gateways that start later."""

    def __init__(self, redis: Any, edge: str) -> None:
        self._redis, self._names = redis, [f"edge:purged:{kind}:{edge}" for kind in KINDS]

    async def read(self) -> list[int | None] | None:
        """None for what nobody knows; None instead of all while Redis does not say."""
        try:
            return [*map(number, self._names, await self._redis.mget(self._names))]
        except (RedisError, OSError):
            return None

    async def write(self, versions: Sequence[int | None]) -> None:
        """What cannot be remembered is purged once more, by whoever starts next."""
        known = {name: version for name, version in zip(self._names, versions, strict=True) if version is not None}
        with contextlib.suppress(RedisError, OSError):
            await self._redis.mset(known)


class _Edge:
    """What one edge still has to forget."""

    def __init__(
        self, number: int, url: str, marks: _Marks, websites: Collection[str], client: httpx.AsyncClient, *, clock: Clock,
        health: Health,
    ) -> None:  # fmt: skip
        self._name, self.url, self._websites = f"edge {number} purge", url, websites
        self._marks, self._client, self._clock, self._health = marks, client, clock, health
        self._debts: list[Debt] = []
        self._news: dict[int, Mapping[str, Any]] = {}
        # Of each kind: up to which version there are debts, or none any more.
        self._until: list[int | None] = [None] * len(KINDS)
        self._first: dict[int, Mapping[str, Any]] | None = {}  # what was said first, until the marks are read
        self._paid = True
        self._woken = asyncio.Event()

    @property
    def owes(self) -> bool:
        """Whether anything is to be purged, now or soon."""
        return bool(self._debts or self._news)

    @property
    def is_behind(self) -> bool:
        """Whether anything is to be purged now."""
        now_s = asyncio.get_running_loop().time()
        return bool(self._news) or any(debt.due_s <= now_s for debt in self._debts)

    def owe(self, tags: frozenset[str]) -> None:
        """See Purger."""
        now_s = asyncio.get_running_loop().time()
        self._debts += [Debt(tags, True, due) for due in (now_s, now_s + AGAIN_S)]
        self._woken.set()

    def changed(self, kind: int, said: Mapping[str, Any]) -> None:
        """See Purger."""
        self._news[kind] = said
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Pay until `stop` is set."""
        await repeat(self.look, stop, name=self._name, idle_s=LOOK_S, health=self._health, wake=self._woken)

    async def look(self) -> bool:
        """Pay what is due; what the edge does not take stays owed."""
        self._woken.clear()
        now_s = asyncio.get_running_loop().time()
        await self._read_marks(now_s)
        for kind, said in self._news.items():
            if self._first is not None and self._until[kind] is None:
                self._first[kind] = said
                self._debts += debts_at_least(said, self._websites, now_s, self._clock.now_ms())
            else:
                self._debts += debts_of(said, self._until[kind], self._websites, now_s)
            self._until[kind], self._paid = said["version"], False
        self._news.clear()
        try:
            for hard, tags in lines(self._debts, now_s):
                await self._purge(tags, hard=hard)
        except (httpx.HTTPError, OSError) as error:
            self._health.trouble(self._name, f"cannot be purged: {type(error).__name__}")
            return False
        self._health.fine(self._name)
        self._debts = [debt for debt in self._debts if debt.due_s > now_s]
        if not self._debts and not self._paid and self._first is None:
            await self._marks.write(self._until)
            self._paid = True
        return False

    async def _read_marks(self, now_s: float) -> None:
        """Learn once how far the edge was purged before us. Until Redis says so not everything is thrown away that may be of
        before: without Redis we may have nothing to answer.
        """
        if self._first is None or (marks := await self._marks.read()) is None:
            return
        for kind, said in self._first.items():
            self._debts += debts_of(said, marks[kind], self._websites, now_s)
        self._until = [mark if until is None else until for until, mark in zip(self._until, marks, strict=True)]
        self._first = None

    async def _purge(self, tags: str, *, hard: bool) -> None:
        headers = {"xkey-purge" if hard else "xkey-softpurge": tags}
        answer = await ask(self._client, "PURGE", self.url, headers=headers, most_bytes=SHORT, most_s=ANSWER_S)
        PURGES.labels(result=str(answer.status_code)).inc()
        answer.raise_for_status()
