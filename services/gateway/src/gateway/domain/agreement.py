"""Whether a gateway and the services are of one world: at one Redis, and at one time.

A gateway that stayed at an old Redis after a failover, or is cut off from it alone, misses what is killed; one whose clock is
off shows what has ended. It cannot see that by itself: the services say, with their heads, which run of Redis they reach, and
what time it is.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Word(NamedTuple):
    """Of a service, asked at an instant: its run of Redis, None while it reaches none, and by how much its clock is off."""

    run: str | None
    off_ms: int
    asked_s: float


class Agreement:
    """What was said last of all this; times are seconds of the loop."""

    def __init__(self, *, skew_ms: int, said_s: float, any_run: str) -> None:
        """`skew_ms`: by how much the clocks of two machines may differ; `said_s`: how long what a service said counts;
        `any_run`: of a Redis that does not tell.
        """
        self._skew_ms, self._said_s, self._any_run = skew_ms, said_s, any_run
        self._said: dict[int, Word] = {}
        self._kills, self._kills_until_s = any_run, -math.inf

    def heard(self, kind: int, said: Word) -> None:
        """A service has said so."""
        self._said[kind] = said

    def read(self, run: str, until_s: float) -> None:
        """The kills were read, from which run of Redis; until when that counts."""
        self._kills, self._kills_until_s = run, until_s

    def trouble(self, now_s: float) -> str | None:
        """In what we differ from the services, if in anything."""
        lately = [said for said in self._said.values() if now_s - said.asked_s < self._said_s]
        runs = {said.run for said in lately} - {None, self._any_run}
        if runs and not (now_s < self._kills_until_s and (self._kills == self._any_run or runs == {self._kills})):
            return "the services reach Redis, and this gateway does not, or another one"
        off = [said.off_ms for said in lately if abs(said.off_ms) > self._skew_ms]
        if len(off) > 1 and len({ms > 0 for ms in off}) == 1:
            return "the clock of this machine differs from those of the services"
        return None


def off_ms(before_ms: int, said_ms: int, after_ms: int) -> int:
    """By how much another clock differs at least, which was asked between two instants of ours."""
    return said_ms - min(max(said_ms, before_ms), after_ms)
