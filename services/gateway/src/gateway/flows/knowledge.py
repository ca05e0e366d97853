"""What the gateway knows: the release it answers by, and how sure it is that nothing newer was published."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Collection
from typing import Any

from chassis.cache import UNKNOWN_RUN
from chassis.clock import SKEW_MS
from chassis.telemetry import get_logger

from gateway.domain.agreement import Agreement
from gateway.domain.kills import Kills
from gateway.domain.release import (
    KINDS,
    NO_CONTENT,
    NO_PROMO,
    NO_SEGMENTS,
    OF_CONTENT,
    OF_PROMO,
    Release,
    release_of,
)

SURE_S = 0.5  # how long what a service said of its head counts
ALONE_S = 5.0  # for how long we may differ from the services: less than a kill waits for who is silent
DOUBT_S = 1.75  # after which nothing is shown of what nobody has spoken of since: we were stopped, or are cut off
log = get_logger("watch")


class Knowledge:
    """The release, swapped whole, and the heads of the three services: as Redis says, and as they say themselves."""

    def __init__(self) -> None:
        self.release: Release = release_of(NO_SEGMENTS, NO_CONTENT, NO_PROMO, range(len(KINDS)))
        self.loaded = False
        self.outdated = asyncio.Event()  # somebody has said that there is something newer
        self.hits = 0  # counted here and moved to the metric once a second: a lock per request costs more than it says
        self.told: tuple[int, ...] = (0,) * len(KINDS)
        self.heads = [(0, 0.0)] * len(KINDS)  # (version, when it was asked for, in seconds of the loop)
        # (version, when it was spoken of first)
        self._spoken: list[deque[tuple[int, float]]] = [deque() for _ in KINDS]
        self.kills: Kills = frozenset()
        self.kills_known = True  # whether the list has been read at all
        self.agreement = Agreement(skew_ms=SKEW_MS, said_s=DOUBT_S, any_run=UNKNOWN_RUN)
        self.trouble: str | None = None  # in what we differ from the services
        self._agreed_s = math.inf
        self._leased_until_s = math.inf
        self._sure_until_s = 0.0
        self._told_s = [0.0] * len(KINDS)  # when Redis was looked at that says something of a kind
        self._met_s = [0.0] * len(KINDS)  # when a service was asked for all it has, and answered
        # Until when a kind is not doubted, and none is; before anybody spoke of it, it is not.
        self._good_s, self._good_until_s = [math.inf] * len(KINDS), math.inf
        self._swapped = asyncio.Event()

    @property
    def is_any(self) -> bool:
        """Whether it is known which slots there are, and what is killed."""
        return self.loaded and self.kills_known

    def swap(self, definitions: Any, content: Any, promo: Any, stale: Collection[int] = ()) -> None:
        """Take new versions in; nothing made from the old ones stays. `stale`: see Release."""
        self._adopt(release_of(definitions, content, promo, stale))
        self.loaded = True
        if self.release.definitions.unreadable:
            log.error("segment_unreadable", segments=self.release.definitions.unreadable)
        self._judge()

    def kill(self, kills: Kills) -> None:
        """What nobody is shown from now on; nothing made with others of them stays."""
        if kills != self.kills:
            self.kills = kills
            self._adopt(self.release.anew())

    def leased(self, run: str, until_s: float) -> None:
        """The kills were read, from which run of Redis; until when a kill waits for us to have taken it."""
        self.agreement.read(run, until_s)
        self._agree()
        self._leased_until_s = until_s
        if not self.kills_known:
            self.kills_known = True
            self._adopt(self.release.anew())

    def _adopt(self, release: Release) -> None:
        self.release = release
        self._swapped.set()
        self._swapped = asyncio.Event()

    async def newer_than(self, release: Release, most_s: float) -> bool:
        """Whether there is another release by now, or within some seconds."""
        if self.release is release:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(most_s):
                    await self._swapped.wait()
        return self.release is not release

    def current(self) -> Release:
        """The release to answer by, now. What was last spoken of too long ago may have ended since: none of it is shown until it
        was asked for anew.
        """
        if (
            asyncio.get_running_loop().time() > self._good_until_s
            and not (doubted := self.doubted()) <= self.release.stale
        ):
            self._adopt(self.release.anew(without=doubted))
            self.outdated.set()
        return self.release

    def doubted(self) -> set[int]:
        """The kinds of which nobody has spoken for too long, and those of what may be killed or over while we are alone."""
        now_s = asyncio.get_running_loop().time()
        alone = {OF_CONTENT, OF_PROMO} if now_s > self._agreed_s + ALONE_S else set()
        return alone.union(kind for kind, good_s in enumerate(self._good_s) if now_s > good_s)

    def meet(self, kind: int, asked_s: float) -> None:
        """A service has said all it has."""
        self.current()
        self._met_s[kind] = asked_s
        self._judge()

    def tell(self, said: tuple[int | None, ...], asked_s: float) -> None:
        """Redis says so, with every look at it; None of what it says nothing of. What was in doubt until then stays so until it
        was asked for anew.
        """
        self.current()
        self._told_s = [at if said[kind] is None else max(at, asked_s) for kind, at in enumerate(self._told_s)]
        told = tuple(version or 0 for version in said)
        if told != self.told:
            self.told = told
            for kind, version in enumerate(told):
                self._speak(kind, version)
            self.outdated.set()
        self._judge()

    def hear(self, kind: int, version: int, asked_s: float) -> None:
        """A service says so itself."""
        self.current()
        self.heads[kind] = (version, asked_s)
        self._agree()
        self._speak(kind, version)
        if self.is_behind(kind):
            self.outdated.set()
        self._judge()

    def _agree(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self.trouble = self.agreement.trouble(now_s)
        if self.trouble is None or self._agreed_s == math.inf:
            self._agreed_s = now_s

    def _speak(self, kind: int, version: int) -> None:
        spoken = self._spoken[kind]
        if not spoken or version > spoken[-1][0]:
            spoken.append((version, asyncio.get_running_loop().time()))

    def behind_since(self, kind: int, version: int) -> float:
        """When somebody first spoke of a version of a kind that is later than this one; infinity while nobody does."""
        if self.newest(kind) <= version:
            return math.inf
        return next((at_s for later, at_s in self._spoken[kind] if later > version), math.inf)

    def _forget(self) -> None:
        """What was spoken of and is here, or is spoken of no more."""
        for kind, version in enumerate(self.release.versions):
            spoken = self._spoken[kind]
            while spoken and (spoken[0][0] <= version or self.newest(kind) <= version):
                spoken.popleft()

    def newest(self, kind: int) -> int:
        """The newest version of a kind that anybody speaks of."""
        return max(self.told[kind], self.heads[kind][0])

    def newest_for_certain(self, kind: int) -> float:
        """No version of a kind is later; infinity while the service itself has not said so lately."""
        said, asked_s = self.heads[kind]
        lately = asyncio.get_running_loop().time() - asked_s < SURE_S
        return max(self.told[kind], said) if lately else math.inf

    def is_behind(self, kind: int) -> bool:
        """Whether the release has another version of a kind (an older one, but for a database that went back, and Redis too), or
        shows nothing of it.
        """
        return kind in self.release.stale or self.newest(kind) != self.release.versions[kind]

    def is_newest(self, now_s: float) -> bool:
        """Whether every head was asked for within SURE_S, and nobody speaks of anything newer than the release, nor of kills."""
        return self.kills_known and now_s < min(self._sure_until_s, self._leased_until_s)

    def _judge(self) -> None:
        self._forget()
        sure = self.loaded and not any(map(self.is_behind, range(len(KINDS))))
        self._sure_until_s = min(at for _, at in self.heads) + SURE_S if sure else 0.0
        if self.loaded:
            spoken = [max(told_s, at) for told_s, (_, at) in zip(self._told_s, self.heads, strict=True)]
            self._good_s = [max(*s) + DOUBT_S if s[0] else math.inf for s in zip(spoken, self._met_s, strict=True)]
            self._good_until_s = min(*self._good_s, self._agreed_s + ALONE_S)
