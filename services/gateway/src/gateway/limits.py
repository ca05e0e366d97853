"""How much one key may ask for."""

from __future__ import annotations

from typing import Any

from chassis.clock import Clock
from chassis.problems import Problem
from redis.exceptions import RedisError


class Limiter:
    """At most so many per minute and name, over all gateways. While Redis is away nothing is refused."""

    def __init__(self, redis: Any, clock: Clock) -> None:
        self._redis, self._clock = redis, clock

    async def take(self, name: str, most: int) -> None:
        """Count one. Raises Problem 429 with Retry-After."""
        minute = self._clock.now_ms() // 60_000
        key = f"rate:{name}:{minute}"
        try:
            pipe = self._redis.pipeline(transaction=False)
            pipe.incr(key)
            pipe.expire(key, 120)
            count = (await pipe.execute())[0]
        except (RedisError, OSError):
            return
        if count > most:
            after = 60 - self._clock.now_ms() // 1000 % 60
            raise Problem("too-many-requests", 429, "Too many requests", headers={"retry-after": str(after)})
