"""How much one person, one neighbourhood of addresses and one key may ask for. Who asks too much silences nobody else.

Counted here at once, so that a request waits for nobody; what somebody asks of all gateways together is known a second later.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from chassis.cache import number
from chassis.clock import Clock
from chassis.health import Health
from chassis.problems import Problem
from chassis.service import repeat
from redis.exceptions import RedisError

NEIGHBOURS = {4: 24, 6: 48}  # bits of an address that whoever has one usually has all addresses of
HOUSE = {4: 32, 6: 64}
UNKNOWN = "unknown"
EVENTS, BYTES = 20, 100
SHARED_S, LEAST_TOLD, MOST_NAMES = 1.0, 1 / 8, 100_000


class Most(NamedTuple):
    """A minute: requests of a person, a neighbourhood, a key; events of a person, of which a neighbourhood has EVENTS times as
    many; bytes of bodies of a neighbourhood, of which a key has BYTES times as many."""

    person: int
    block: int
    key: int
    events: int = 3000
    bytes: int = 32 << 20


@lru_cache(maxsize=65_536)
def block_of(address: str) -> str:
    """The neighbourhood of an address."""
    return _network(address, NEIGHBOURS)


@lru_cache(maxsize=65_536)
def house_of(address: str) -> str:
    """Those of whom one can be all: an IPv4 address, the network behind a line of IPv6."""
    return _network(address, HOUSE)


def _network(address: str, bits: Mapping[int, int]) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return UNKNOWN
    found = getattr(found, "ipv4_mapped", None) or found
    return str(ip_network((found, bits[found.version]), strict=False).network_address)


class Counts:
    """What was counted in a minute of one kind of names: here, and elsewhere as far as that was told."""

    __slots__ = ("elsewhere", "here", "kind", "least", "loud", "most", "most_names")

    def __init__(self, kind: str, most: int, most_names: float) -> None:
        self.kind, self.most, self.least, self.most_names = kind, most, most * LEAST_TOLD, most_names
        self.here: dict[Any, int] = {}
        self.loud: set[Any] = set()  # who concerns others
        self.elsewhere: dict[Any, int] = {}

    def exceeds(self, who: str | bytes, weight: int = 1) -> bool:
        """Count; whether that is too much now."""
        here = self.here
        count = here.get(who, 0) + weight
        if count == weight and len(here) >= self.most_names:
            return False
        here[who] = count
        if count >= self.least:
            self.loud.add(who)
        return count + self.elsewhere.get(who, 0) > self.most

    def told(self) -> dict[Any, int]:
        """What concerns others; without a walk over everybody, which would keep the loop."""
        return {who: self.here[who] for who in self.loud}


class Limiter:
    """Counts of a minute by name, of at most MOST_NAMES a kind: who comes when there are as many is not counted but by the key.

    What here comes to less than LEAST_TOLD of what is allowed is nobody else's concern. While Redis is away each gateway counts
    for itself.
    """

    def __init__(self, redis: Any, clock: Clock, most: Most, health: Health) -> None:
        self._redis, self._clock, self._most, self._health = redis, clock, most, health
        self._minute, self._id = 0, uuid.uuid4().hex
        self._begin()

    def _begin(self) -> None:
        most = self._most
        self._persons, self._blocks = Counts("person", most.person, MOST_NAMES), Counts("block", most.block, MOST_NAMES)
        self._keys = Counts("key", most.key, math.inf)
        self._events = Counts("events", most.events, MOST_NAMES)
        self._neighbours = Counts("neighbours", most.events * EVENTS, MOST_NAMES)
        self._bytes = Counts("bytes", most.bytes, MOST_NAMES)
        self._key_bytes = Counts("key-bytes", most.bytes * BYTES, math.inf)

    def take_of(self, address: str) -> None:
        """Count a request, before anything else is done for it; not of a server, which has many shoppers. Raises Problem 429."""
        self._turn()
        if self._blocks.exceeds(block_of(address)):
            raise self._refused()

    def take(self, key: str, *, person: bytes | None, address: str | None = None) -> None:
        """Count a request by who asks; of a server no `person`; with an `address` by that first. Raises Problem 429.

        A key is not charged for what a person is refused.
        """
        self._turn()
        exceeded = address is not None and self._blocks.exceeds(block_of(address))
        if exceeded or (person is not None and self._persons.exceeds(person)) or self._keys.exceeds(key):
            raise self._refused()

    def take_events(self, count: int, *, person: bytes | None, address: str) -> None:
        """Count events of a browser. Raises Problem 429."""
        self._turn()
        if (person is not None and self._events.exceeds(person, count)) or self._neighbours.exceeds(
            block_of(address), count
        ):
            raise self._refused()

    def take_bytes(self, count: int, *, key: str | None, address: str | None) -> None:
        """Count bytes of a body, before anybody looks at them; of a server no `address`. Raises Problem 429."""
        self._turn()
        exceeded = address is not None and self._bytes.exceeds(block_of(address), count)
        if exceeded or (key is not None and self._key_bytes.exceeds(key, count)):
            raise self._refused()

    def _turn(self) -> None:
        minute = self._clock.now_ms() // 60_000
        if minute != self._minute:
            self._minute = minute
            self._begin()

    def _refused(self) -> Problem:
        wait_s = 60 - self._clock.now_ms() // 1000 % 60
        return Problem("too-many-requests", 429, "Too many requests", headers={"retry-after": str(wait_s)})

    async def run(self, stop: asyncio.Event) -> None:
        """Tell the other gateways, and hear from them, until `stop` is set."""
        await repeat(self.share, stop, name="redis limits", idle_s=SHARED_S, health=self._health)

    async def share(self) -> bool:
        """Once: what each has counted so far, so that saying it twice changes nothing."""
        minute, kinds = self._minute, (
            self._persons, self._blocks, self._keys, self._events, self._neighbours, self._bytes, self._key_bytes
        )  # fmt: skip
        told = [(kind, who, count) for kind in kinds for who, count in kind.told().items()]
        pipe = self._redis.pipeline(transaction=False)
        for kind, who, count in told:
            at = f"rate:{kind.kind}:{who if isinstance(who, str) else who.decode()}:{minute}"
            pipe.hset(at, self._id, count).expire(at, 120).hvals(at)
        try:
            everybodys = (await pipe.execute())[2::3]
        except (RedisError, OSError):
            return False
        for (kind, who, count), each in zip(told, everybodys, strict=True):
            everybody = sum(number("rate", said) or 0 for said in each)
            kind.elsewhere[who] = everybody - count  # of a minute that is over nobody looks any more
        return False
