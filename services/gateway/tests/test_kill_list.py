"""The list of kills has only so many names, however many are killed at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from chassis.auth import Actor
from chassis.cache import open_redis
from chassis.clock import ManualClock
from chassis.health import Health
from chassis.problems import Problem
from chassis.schemas import MOST_KILLED
from gateway.flows.kill import KILLS, Killer

pytestmark = pytest.mark.servers
ANN = Actor("ann", "admin")


async def test_of_many_at_once_as_many_are_stored_as_there_is_room_for(redis_url: str) -> None:
    none: Any = None
    knowledge: Any = SimpleNamespace(kills_known=True)
    redis = open_redis(redis_url)
    killers = [Killer(knowledge, redis, none, none, ManualClock(1), Health()) for _ in range(2)]
    await redis.hset(KILLS, mapping={f"block:k{n}": "{}" for n in range(MOST_KILLED - 3)})
    stored = await asyncio.gather(
        *(killers[n % 2]._store(f"block:new{n}", ANN) for n in range(20)), return_exceptions=True
    )
    assert sorted(count for count in stored if isinstance(count, int)) == [1, 2, 3]
    assert {(e.slug, e.status) for e in stored if isinstance(e, Problem)} == {("kills-full", 409)}
    assert await redis.hlen(KILLS) == MOST_KILLED
    assert await killers[0]._store("block:k0", ANN) == 4, "one that is there is there"
    await redis.aclose()
