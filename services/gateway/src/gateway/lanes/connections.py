"""Who is connected: how many of each address, and how many bytes are held for them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from chassis.health import Health
from chassis.service import repeat

from gateway.domain.reply import Headers, status_line

if TYPE_CHECKING:
    from gateway.lanes.connection import Connection

# Bytes of requests that are counted, as sent, and likewise of answers that are not taken: of an address, and together.
MOST_OF_HOUSE, MOST_OF_ALL = 32 << 20, 96 << 20
LOOK_S = 1.0
FILES = 256  # kept for services, Redis, Kafka and edges


class Room:
    """How many bytes are held for each house, and for all of them."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self.all = 0

    def hold(self, house: str, more: int) -> bool:
        """So many bytes more, or less; whether there is room for them."""
        self.all += more
        self.of[house] += more
        if not self.of[house]:
            del self.of[house]
        return self.fits(house)

    def fits(self, house: str) -> bool:
        """Whether neither a house has more than it may, nor all of them."""
        return self.all <= MOST_OF_ALL and not self.is_full(house)

    def is_full(self, house: str) -> bool:
        """Whether a house has more than it may."""
        return self.of[house] > MOST_OF_HOUSE


class Connections:
    """Those that are open, and how many of each address (of IPv6, of each /64); how many bytes the large requests among what they
    say come to, from their first to their answer; and the answers that they do not take."""

    def __init__(self, most_of_an_address: int, health: Health, front: bytes, *, files: int) -> None:
        """`front`: the key by which an edge, or who else stands in front, is known; `files`: that the process may have open."""
        self.open: set[Connection] = set()
        self.of: Counter[str] = Counter()
        self.requests, self.answers = Room(), Room()
        self.front, self._most, self._health = front, most_of_an_address, health
        self._counted, self._most_of_all = 0, max(1, files - FILES)
        self._now: Headers = []
        self._heads: dict[int, bytes] = {}

    def head(self, status: int, now: Headers) -> bytes:
        """The status line and what every answer of this second has; uvicorn makes a new list when the second is over."""
        if now is not self._now:
            self._now, self._heads = now, {}
        found = self._heads.get(status)
        if found is None:
            found = self._heads[status] = status_line(status) + b"".join(b"%b: %b\r\n" % header for header in now)
        return found

    def count(self, house: str) -> bool:
        """One more of a house; whether it may be. When all places are taken, the house that has most of them gives one up."""
        self.of[house] += 1
        self._counted += 1
        if self._counted > self._most_of_all:
            self._give_up()
        return self.of[house] <= self._most

    def uncount(self, house: str) -> None:
        """One less."""
        self.of[house] -= 1
        self._counted -= 1
        if not self.of[house]:
            del self.of[house]

    def forget(self, connection: Connection) -> None:
        """It is at its end. At once: who comes in the same turn of the loop needs a place of somebody else."""
        if connection in self.open:
            self.open.remove(connection)
            if not connection.edge:
                self.uncount(connection.house)

    def _give_up(self) -> None:
        for house, _ in self.of.most_common():
            waiting = [c for c in self.open if c.house == house and c.since and not c.edge]
            if waiting:
                (longest := min(waiting, key=lambda c: c.since)).drop()
                self.forget(longest)
                return

    def make_room(self, house: str) -> None:
        """End who has taken nothing for longest: of this house while it has too much, then of all."""
        slow = sorted((c for c in self.open if c.unsent), key=lambda c: c.stuck_s)
        while not self.answers.fits(house):
            full = self.answers.is_full(house)
            slow.remove(longest := next(c for c in slow if c.house == house or not full))
            longest.drop()

    async def run(self, stop: asyncio.Event) -> None:
        """End those that take too long, until `stop` is set."""
        await repeat(self.look, stop, name="connections", idle_s=LOOK_S, health=self._health)

    async def look(self) -> bool:
        """Once."""
        now_s = asyncio.get_running_loop().time()
        for connection in list(self.open):
            connection.look(now_s)
        return False
