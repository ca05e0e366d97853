"""Follows the published versions, swaps what the gateway knows, and purges the edge of what changed.

Every Redis round trip brings the versions along, so a change is known as soon as anything is read. What was purged up
to which version stands in Redis: a gateway that was away purges what it missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
from chassis.asking import let_go
from chassis.health import Health
from chassis.pace import pause_s
from chassis.service import repeat
from chassis.telemetry import get_logger
from redis.exceptions import RedisError

from gateway.domain.answer import Answer
from gateway.domain.targeting import Definitions, Plan, SegmentRef, definitions_of, plan, resolved
from gateway.kept import Kept
from gateway.telemetry import DECISIONS, PURGES
from gateway.upstreams import CONTENT, MOST_IDLE_S, PROMO, SEGMENT, Upstreams

WATCHED = (b"ver:segment", b"ver:content", b"ver:promo")
KINDS = ("segment", "content", "promo")
NO_SEGMENTS = {"version": 0, "empty": {"visitor": "", "customer": ""}, "segments": [], "changes": []}
NO_CONTENT: dict[str, Any] = {"version": 0, "slots": {}, "changes": []}
NO_PROMO: dict[str, Any] = {"version": 0, "segments": [], "groups": False, "boundaries": [], "changes": []}
MOST_PLANS, MOST_ANSWERS, MOST_TAGS = 16 << 20, 64 << 20, 4096  # bytes
LOOK_S, RETRY_S, PATIENCE_S = 1.0, 0.05, 1.0
ASKED = ((SEGMENT, "/v1/definitions"), (CONTENT, "/v1/targeting"), (PROMO, "/v1/targeting"))
log = get_logger("watch")
_hits = DECISIONS.labels(source="memory")


class Knowledge:
    """Definitions and targeting, swapped together; plans and finished answers live as long as they do."""

    def __init__(self) -> None:
        self.definitions: Definitions = definitions_of(NO_SEGMENTS)
        self.content, self.promo = NO_CONTENT, NO_PROMO
        self.edge: tuple[SegmentRef, ...] = ()  # what any cached answer can depend on, by id: the edge must know these
        self.loaded = False
        self.release = (
            0  # grows with every swap: what was made from an older one is told by it, and keeps nothing alive
        )
        self.outdated = asyncio.Event()  # a service answered from a newer version than is known
        self.hits = 0  # counted here and moved to the metric once a second: a lock per request costs more than it says
        self.answers: Kept[Any, Answer] = Kept(MOST_ANSWERS)
        self.plans: Kept[Any, Plan] = Kept(MOST_PLANS)

    def swap(self, definitions: Any, content: Any, promo: Any) -> None:
        """Take new versions in; nothing made from the old ones stays."""
        self.definitions, self.content, self.promo = definitions_of(definitions), content, promo
        self.edge = _edge(self.definitions, content, promo)
        if self.definitions.unreadable:
            log.error("segment_unreadable", segments=self.definitions.unreadable)
        self.answers, self.plans, self.loaded = Kept(MOST_ANSWERS), Kept(MOST_PLANS), True
        self.release += 1

    def plan(self, website: str, slots: Sequence[str], locale: str) -> Plan:
        """The plan of a kind of request, made once per version for the slots that there are, and the locales they have."""
        there = tuple(s for s in slots if s in self.content["slots"])
        locale = resolved(locale, {name for s in there for name in self.content["slots"][s]["locales"]})
        key = (website, there, locale)
        found = self.plans.get(key)
        if found is None:
            found = plan(
                self.definitions, self.content, self.promo, website=website, slots=there, locale=locale,
                release=self.release,
            )  # fmt: skip
            self.plans.put(key, found, found.size)
        if len(there) == len(slots):
            return found
        return replace(found, unknown=tuple(s for s in slots if s not in self.content["slots"]))


def _edge(definitions: Definitions, content: Mapping[str, Any], promo: Mapping[str, Any]) -> tuple[SegmentRef, ...]:
    keys = {k for slot in content["slots"].values() for k in slot["segments"]} | set(promo["segments"])
    refs = [definitions.segments[k] for k in keys if k in definitions.segments]
    return tuple(sorted((r for r in refs if r.atom is not None), key=lambda r: r.id))


class Watcher:
    """`seen` is told the versions by the pipe; `run` refreshes when they differ from what is known."""

    def __init__(
        self, knowledge: Knowledge, upstreams: Upstreams, redis: Any, edges: tuple[Sequence[str], str], health: Health
    ) -> None:
        self._knowledge, self._upstreams, self._redis, self._health = knowledge, upstreams, redis, health
        self._edges, self._secret = edges
        limits = httpx.Limits(keepalive_expiry=MOST_IDLE_S)
        self._client = httpx.AsyncClient(timeout=2.0, limits=limits)  # one for good: it is dear to make
        self._unpurged: dict[str, Mapping[str, Any]] = {}
        self._said: tuple[Mapping[str, Any], ...] = ()  # definitions and targetings that are known
        self._latest: tuple[int, ...] = ()  # what Redis says
        self._looked: tuple[int, ...] = ()  # what it said before they were asked for
        self._missing = False  # somebody did not say
        self._behind = 0  # how often in a row they were older than that

    async def aclose(self) -> None:
        """Close the connections to edges."""
        await self._client.aclose()

    def seen(self, versions: list[bytes | None]) -> None:
        """Called with every look at Redis."""
        self._latest = tuple(int(version or 0) for version in versions)
        if self._latest != self._looked:
            self._knowledge.outdated.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Refresh on every change, until `stop` is set."""
        await repeat(self.look, stop, name="watch", idle_s=LOOK_S, health=self._health, wake=self._knowledge.outdated)

    async def look(self) -> bool:
        """Refresh if anything changed, and purge what is still to be; True when there is more to do at once."""
        _hits.inc(self._knowledge.hits)
        self._knowledge.hits = 0
        known, missing = self._knowledge, []
        if not known.loaded or self._missing or known.outdated.is_set() or self._behind or self._latest != self._looked:
            known.outdated.clear()
            missing = await self.refresh()
            self._missing = bool(missing)
        try:
            await self.purge()
        except (httpx.HTTPError, RedisError, OSError) as error:  # an edge that is away keeps nobody from what is new
            self._health.trouble("edge", f"cannot be purged: {type(error).__name__}")
        else:
            self._health.fine("edge")
        if missing:
            raise missing[0]
        if self._behind:
            await asyncio.sleep(pause_s(self._behind - 1, base_s=RETRY_S, most_s=LOOK_S))
        return bool(self._behind) or self._latest != self._looked or known.outdated.is_set()

    async def refresh(self) -> list[Exception]:
        """Load all three; swap when one of them is new, and what they say has changed is to be purged. Answers what went wrong.

        Whoever answers may not have seen yet what was published: known is what the answers say of themselves, never what
        Redis says, and an answer older than what is known is not taken, unless Redis has gone back as well.
        """
        latest = self._latest
        said, missing = await self._ask()
        told = latest or (0, 0, 0)
        if self._said:
            said = tuple(
                old if new["version"] < old["version"] <= least else new
                for new, old, least in zip(said, self._said, told, strict=True)
            )
        if [s["version"] for s in said] != [s["version"] for s in self._said]:
            self._knowledge.swap(*said)
            self._said = said
            self._unpurged = dict(zip(KINDS, said, strict=True)) if self._edges else {}
        self._looked = latest
        late = any(s["version"] < least for s, least in zip(said, told, strict=True))
        self._behind = self._behind + 1 if late else 0
        return missing

    async def _ask(self) -> tuple[tuple[Mapping[str, Any], ...], list[Exception]]:
        """What the three say, and why one did not: then it is what is known of it, so that one keeps no other from telling."""
        tasks = [asyncio.ensure_future(self._upstreams.json(service, "GET", path)) for service, path in ASKED]
        try:
            await asyncio.wait(tasks, timeout=PATIENCE_S)
        finally:
            for task in tasks:
                task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        missing = [error for error in found if isinstance(error, Exception)]
        missing += [TimeoutError() for error in found if isinstance(error, asyncio.CancelledError)]
        if missing and not self._said:
            raise missing[0]
        return tuple(self._said[i] if isinstance(x, BaseException) else x for i, x in enumerate(found)), missing

    async def purge(self) -> None:
        """Purge what is to be; what an edge did not take stays to be, and keeps nothing else from it. Raises the first error."""
        errors: list[Exception] = []
        for kind in list(self._unpurged):
            try:
                await self._purge(kind, self._unpurged[kind])
            except (httpx.HTTPError, RedisError, OSError) as error:
                errors.append(error)
            else:
                del self._unpurged[kind]
        if errors:
            raise errors[0]

    async def _purge(self, kind: str, source: Mapping[str, Any]) -> None:
        name = f"edge:purged:{kind}"
        purged = int(await self._redis.get(name) or 0)
        if purged >= source["version"]:
            return
        changes = [c for c in source["changes"] if c["version"] > purged]
        gap = len(changes) < source["version"] - max(purged, 1)
        tags = " ".join(sorted({tag for c in changes for tag in c["tags"]}))
        for edge in self._edges:
            # A line that is longer than an edge reads would never be taken.
            headers = {"xkey-purge": "all" if gap or len(tags) > MOST_TAGS else tags, "x-edge-secret": self._secret}
            answer = let_go(await self._client.request("PURGE", edge, headers=headers))
            PURGES.labels(result=str(answer.status_code)).inc()
            answer.raise_for_status()
        await self._redis.set(name, source["version"])
