"""Called by the gateway's clock. Follows the heads of the three services, and swaps the release when all parts of a newer one
are here.

Every Redis round trip brings the versions along, so a change is known as soon as anything is read; a service is asked for its
head as well, several times a second, because Redis may be away, or behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

from chassis.asking import SHORT
from chassis.cache import number
from chassis.clock import Clock
from chassis.health import Health
from chassis.pace import pause_s
from chassis.service import FOLLOW_S, repeat

from gateway.adapters.upstreams import CONTENT, MOST_OF_MANY, PROMO, SEGMENT, Upstreams
from gateway.domain import said
from gateway.domain.agreement import Word, off_ms
from gateway.domain.release import KINDS, NO_CONTENT, NO_PROMO, NO_SEGMENTS, OF_CONTENT, OF_PROMO, OF_SEGMENTS, needs
from gateway.flows.knowledge import Knowledge
from gateway.telemetry import DECISIONS

VERSIONS = tuple(f"ver:{kind}" for kind in KINDS)
WATCHED = tuple(key.encode() for key in VERSIONS)
ASKED: tuple[tuple[str, str, Any], ...] = (
    (SEGMENT, "/v1/definitions", said.Segments), (CONTENT, "/v1/targeting", said.Content), (PROMO, "/v1/targeting", said.Promo),
)  # fmt: skip
HEAD_S, LOOK_S, RETRY_S, RETRY_MOST_S, PATIENCE_S = 0.2, 1.0, 0.05, 0.25, 1.0
# For how long a release is followed that is known to be behind: what cannot be had, or waits for segments; and what is only late.
# Each, with the time to be told and to answer, is to be less than two seconds; and so is PATIENCE_S.
HELD_S, LATE_S = 0.5, 1.25
ELSEWHERE = "documents are handed to another Redis than services reach: nobody is known"
Said = tuple[Mapping[str, Any], ...]
NOTHING: Said = (NO_SEGMENTS, NO_CONTENT, NO_PROMO)  # of a service that has not been heard yet
Changed = Callable[[int, Mapping[str, Any]], None]
Belongs = Callable[[str | None], None]
_hits = DECISIONS.labels(source="memory")


class Watcher:
    """`seen` is told the versions by the pipe, `heads` asks for them, `run` follows them; `changed` is told, by kind, what a
    service says of itself when that is new."""

    def __init__(
        self,
        knowledge: Knowledge,
        upstreams: Upstreams,
        changed: Changed,
        belongs: Belongs,
        clock: Clock,
        health: Health,
    ) -> None:
        """`belongs` is told which run of Redis has the documents, as segment-svc says; None: it does not say."""
        self._knowledge, self._upstreams, self._changed, self._health = knowledge, upstreams, changed, health
        self._belongs, self._clock = belongs, clock
        self._said: Said = ()  # of the release
        self._met = [0] * len(KINDS)  # up to which version a kind had the segments that it needs
        self._held_s = 0.0  # since when something waits for segments
        self._behind = 0  # how often in a row what is known was older than what anybody speaks of

    def seen(self, versions: list[bytes | None], asked_s: float) -> None:
        """Called with every look at Redis, and when it was begun."""
        self._knowledge.tell(tuple(map(number, VERSIONS, versions)), asked_s)

    async def heads(self, stop: asyncio.Event) -> None:
        """Ask every service for its head, again and again, until `stop` is set; none waits for another."""
        await asyncio.gather(*(self._head(kind, service, stop) for kind, (service, *_) in enumerate(ASKED)))

    async def _head(self, kind: int, service: str, stop: asyncio.Event) -> None:
        async def ask() -> bool:
            asked_s, before_ms = asyncio.get_running_loop().time(), self._clock.now_ms()
            async with asyncio.timeout(PATIENCE_S):
                head = await self._upstreams.json(service, "GET", "/v1/head", said.Head, most_bytes=SHORT)
            off = off_ms(before_ms, head["at_ms"], self._clock.now_ms())
            self._knowledge.agreement.heard(kind, Word(head["redis"], off, asked_s))
            if kind == OF_SEGMENTS:
                self._live_at(head.get("home"), head["redis"])
            self._knowledge.hear(kind, head["version"], asked_s)
            return False

        await repeat(ask, stop, name=f"watch {service}", idle_s=HEAD_S, health=self._health, most_s=FOLLOW_S)

    def _live_at(self, home: str | None, reached: str | None) -> None:
        apart = home and reached and home != reached
        self._health.set("redis home", ELSEWHERE if apart else None)
        self._belongs(home)

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until `stop` is set."""
        wake = self._knowledge.outdated
        await repeat(self.look, stop, name="watch", idle_s=LOOK_S, health=self._health, wake=wake)

    async def look(self) -> bool:
        """Load what is newer than the release; True when there is more to do at once. Raises what a service failed with, once
        it has taken too long.
        """
        known = self._knowledge
        self._health.set("agreement", known.trouble)
        _hits.inc(known.hits)
        known.hits = 0
        known.outdated.clear()
        wanted = [kind for kind in range(len(KINDS)) if not known.loaded or known.is_behind(kind)]
        if not wanted:
            self._behind = 0
            return False
        missing = await self._load(wanted)
        stale = ", ".join(KINDS[kind] for kind in sorted(known.release.stale))
        self._health.set(
            "watch release", f"nothing newer can be had of: {stale}" if stale and not known.trouble else None
        )
        if missing and known.release.stale:
            raise missing[0]
        self._behind = self._behind + 1 if any(map(known.is_behind, wanted)) else 0
        if self._behind:
            most_s = LOOK_S if known.release.stale else RETRY_MOST_S
            await asyncio.sleep(pause_s(self._behind - 1, base_s=RETRY_S, most_s=most_s))
        return bool(self._behind)

    async def _load(self, kinds: list[int]) -> list[Exception]:
        """Ask for these kinds, and swap when one of them is new. Answers what went wrong; one keeps no other from telling."""
        found = await asyncio.gather(*map(self._ask, kinds), return_exceptions=True)
        lost = {kind: error for kind, error in zip(kinds, found, strict=True) if isinstance(error, Exception)}
        new = {k: x for k, x in zip(kinds, found, strict=True) if isinstance(x, Mapping) and self._is_new(k, x)}
        if not self._said and OF_CONTENT in lost:  # of no slot anything is known
            return list(lost.values())
        try:
            self._follow(new, lost)
        except Exception as error:  # what reads well, and cannot be followed, is as good as lost
            if not self._said:
                raise
            lost |= dict.fromkeys(new, error)
            self._follow({}, lost)
        return list(lost.values())

    def _follow(self, new: Mapping[int, Mapping[str, Any]], lost: Collection[int]) -> None:
        before = self._said or NOTHING
        parts = [new.get(kind) or before[kind] for kind in range(len(KINDS))]
        stale = self._overdue(parts, lost) | {kind for kind, part in enumerate(parts) if part is NOTHING[kind]}
        if self._hold(parts, lost=OF_SEGMENTS in lost):
            stale.add(OF_SEGMENTS)
        changed = [kind for kind, part in enumerate(parts) if part is not before[kind]]
        if changed or stale != self._knowledge.release.stale:
            self._knowledge.swap(parts[0], parts[1], parts[2], stale=stale)
            self._said = tuple(parts)
            for kind in changed:
                self._changed(kind, parts[kind])

    def _overdue(self, parts: list[Mapping[str, Any]], lost: Collection[int]) -> set[int]:
        """The kinds of which something newer has been spoken of for too long, or that nobody speaks of: what is not here may have
        ended something.
        """
        now_s = asyncio.get_running_loop().time()
        since_s = [self._knowledge.behind_since(kind, part["version"]) for kind, part in enumerate(parts)]
        late = {kind for kind, at_s in enumerate(since_s) if now_s - at_s >= (HELD_S if kind in lost else LATE_S)}
        return late | self._knowledge.doubted()

    def _hold(self, parts: list[Mapping[str, Any]], *, lost: bool) -> bool:
        """What names segments that are not here yet waits for them; not for long, and not when they are `lost`, for it may end
        something. Then it is followed, and of no segment anybody is known to be in or out: answers whether that is so.
        """
        now_s, there_is = asyncio.get_running_loop().time(), self._knowledge.newest_for_certain(OF_SEGMENTS)
        waiting = [
            k
            for k in (OF_CONTENT, OF_PROMO)
            if min(needs(parts[k], self._met[k]), there_is) > parts[OF_SEGMENTS]["version"]
        ]
        for kind in {OF_CONTENT, OF_PROMO} - set(waiting):
            self._met[kind] = parts[kind]["version"]
        self._held_s = (self._held_s or now_s) if waiting else 0.0
        if waiting and (not self._said or lost or now_s - self._held_s >= HELD_S):
            return True
        for kind in waiting:
            parts[kind] = self._said[kind]
        return False

    async def _ask(self, kind: int) -> Mapping[str, Any]:
        (service, path, shape), asked_s = ASKED[kind], asyncio.get_running_loop().time()
        async with asyncio.timeout(PATIENCE_S):
            found: Mapping[str, Any] = await self._upstreams.json(service, "GET", path, shape, most_bytes=MOST_OF_MANY)
        self._knowledge.meet(kind, asked_s)
        return found

    def _is_new(self, kind: int, found: Mapping[str, Any]) -> bool:
        """Whether to take what a service says: not what is older than what is known, but when its database went back."""
        if not self._said or self._said[kind] is NOTHING[kind]:
            return True
        known, version = int(self._said[kind]["version"]), int(found["version"])
        return version > known or (version < known and self._knowledge.newest(kind) < known)
