"""How much one person, one neighbourhood of addresses and one key may ask for. Who asks too much silences nobody else."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from chassis.clock import Clock
from chassis.problems import Problem
from redis.exceptions import RedisError

NEIGHBOURS = {4: 24, 6: 48}  # bits of an address that whoever has one usually has all addresses of
UNKNOWN = "unknown"


class Most(NamedTuple):
    """Requests a minute."""

    person: int
    block: int
    key: int


def block_of(address: str) -> str:
    """The neighbourhood of an address."""
    try:
        found = ip_address(address)
    except ValueError:
        return UNKNOWN
    found = getattr(found, "ipv4_mapped", None) or found
    return str(ip_network((found, NEIGHBOURS[found.version]), strict=False).network_address)


class Limiter:
    """Counts minutes over all gateways. While Redis is away nothing is refused."""

    def __init__(self, redis: Any, clock: Clock, most: Most) -> None:
        self._redis, self._clock, self._most = redis, clock, most

    async def take(self, key: str, *, person: str | None, address: str | None) -> None:
        """Count a request; of a server, which has many shoppers, neither `person` nor `address`. Raises Problem 429.

        A key is not charged for what a person or an address is refused.
        """
        counts = [(f"person:{person}", self._most.person)] if person is not None else []
        if address is not None:
            counts.append((f"block:{block_of(address)}", self._most.block))
        if counts:
            await self._count(counts)
        await self._count([(f"key:{key}", self._most.key)])

    async def _count(self, counts: list[tuple[str, int]]) -> None:
        now_s = self._clock.now_ms() // 1000
        pipe = self._redis.pipeline(transaction=False)
        for name, _ in counts:
            pipe.incr(f"rate:{name}:{now_s // 60}").expire(f"rate:{name}:{now_s // 60}", 120)
        try:
            found = (await pipe.execute())[::2]
        except (RedisError, OSError):
            return
        if any(count > most for count, (_, most) in zip(found, counts, strict=True)):
            raise Problem("too-many-requests", 429, "Too many requests", headers={"retry-after": str(60 - now_s % 60)})
