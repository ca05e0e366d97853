"""How much one person, one neighbourhood of addresses and one key may ask for. Who asks too much silences nobody else.

Counted here at once, so that a request waits for nobody; what somebody asks of all gateways together is known a second later.
"""

from __future__ import annotations

import asyncio
import uuid
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from chassis.clock import Clock
from chassis.health import Health
from chassis.problems import Problem
from chassis.service import repeat
from redis.exceptions import RedisError

NEIGHBOURS = {4: 24, 6: 48}  # bits of an address that whoever has one usually has all addresses of
UNKNOWN = "unknown"
EVENTS = 20
SHARED_S, LEAST_TOLD, MOST_NAMES = 1.0, 1 / 8, 100_000


class Most(NamedTuple):
    """A minute: requests of a person, a neighbourhood, a key; events of a person, of which a neighbourhood has EVENTS as many."""

    person: int
    block: int
    key: int
    events: int = 3000


@lru_cache(maxsize=65_536)
def block_of(address: str) -> str:
    """The neighbourhood of an address."""
    try:
        found = ip_address(address)
    except ValueError:
        return UNKNOWN
    found = getattr(found, "ipv4_mapped", None) or found
    return str(ip_network((found, NEIGHBOURS[found.version]), strict=False).network_address)


class Limiter:
    """Counts of a minute by name, of at most MOST_NAMES: who comes when there are as many is not counted but by the key.

    What here comes to less than LEAST_TOLD of what is allowed is nobody else's concern. While Redis is away each gateway counts
    for itself.
    """

    def __init__(self, redis: Any, clock: Clock, most: Most, health: Health) -> None:
        self._redis, self._clock, self._most, self._health = redis, clock, most, health
        self._minute, self._id = 0, uuid.uuid4().hex
        self._here: dict[str, int] = {}
        self._elsewhere: dict[str, int] = {}

    def take_of(self, address: str) -> None:
        """Count a request, before anything else is done for it; not of a server, which has many shoppers. Raises Problem 429."""
        self._turn()
        self._count("block:" + block_of(address), self._most.block)

    def take(self, key: str, *, person: str | None) -> None:
        """Count a request by who asks; of a server no `person`. Raises Problem 429.

        A key is not charged for what a person is refused.
        """
        self._turn()
        if person is not None:
            self._count("person:" + person, self._most.person)
        self._count("key:" + key, self._most.key, always=True)

    def take_events(self, count: int, *, person: str | None, address: str) -> None:
        """Count events of a browser. Raises Problem 429."""
        self._turn()
        if person is not None:
            self._count("events:" + person, self._most.events, count)
        self._count("events:" + block_of(address), self._most.events * EVENTS, count)

    def _turn(self) -> None:
        minute = self._clock.now_ms() // 60_000
        if minute != self._minute:
            self._minute, self._here, self._elsewhere = minute, {}, {}

    def _count(self, name: str, most: int, weight: int = 1, *, always: bool = False) -> None:
        count = self._here.get(name, 0) + weight
        if count == weight and len(self._here) >= MOST_NAMES and not always:
            return
        self._here[name] = count
        if count + self._elsewhere.get(name, 0) > most:
            wait_s = 60 - self._clock.now_ms() // 1000 % 60
            raise Problem("too-many-requests", 429, "Too many requests", headers={"retry-after": str(wait_s)})

    async def run(self, stop: asyncio.Event) -> None:
        """Tell the other gateways, and hear from them, until `stop` is set."""
        await repeat(self.share, stop, name="limits", idle_s=SHARED_S, health=self._health)

    async def share(self) -> bool:
        """Once: what each has counted so far, so that saying it twice changes nothing."""
        minute = self._minute
        least = {kind: getattr(self._most, kind) * LEAST_TOLD for kind in Most._fields}
        names = [n for n, count in self._here.items() if count >= least[n.partition(":")[0]]]
        counts = [self._here[name] for name in names]
        pipe = self._redis.pipeline(transaction=False)
        for name, count in zip(names, counts, strict=True):
            at = f"rate:{name}:{minute}"
            pipe.hset(at, self._id, count).expire(at, 120).hvals(at)
        try:
            everybodys = (await pipe.execute())[2::3]
        except (RedisError, OSError):
            return False
        if minute == self._minute:
            for name, count, each in zip(names, counts, everybodys, strict=True):
                self._elsewhere[name] = sum(map(int, each)) - count
        return False
