"""Which Redis a service reaches: gateways compare it with theirs, for after a failover some may stay at the old one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from redis.exceptions import RedisError

from chassis.cache import run_of
from chassis.db import Tx, now_ms
from chassis.health import Health
from chassis.service import repeat

LOOK_S, REACHED_S = 0.5, 3.0


class Reached:
    """Looks twice a second."""

    def __init__(self, redis: Any, health: Health) -> None:
        self._redis, self._health = redis, health
        self._run, self._at_s = "", -REACHED_S

    async def look(self) -> bool:
        """Once. What cannot be reached is the trouble of who needs it."""
        began_s = time.monotonic()
        try:
            self._run, self._at_s = await run_of(self._redis), began_s
        except (RedisError, OSError):
            return False
        return False

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        await repeat(self.look, stop, name="redis reached", idle_s=LOOK_S, health=self._health)

    @property
    def redis(self) -> str | None:
        """The run of the Redis that was there a moment ago (cache.run_of); None when none was."""
        return self._run if time.monotonic() - self._at_s < REACHED_S else None


async def head(tx: Tx, version: int, reached: Reached) -> dict[str, Any]:
    """What GET /v1/head answers: the version published, the run of Redis that is reached, if one is, and the database's time."""
    return {"version": version, "redis": reached.redis, "at_ms": await now_ms(tx)}
