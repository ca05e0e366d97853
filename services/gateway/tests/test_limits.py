"""Who asks too much is refused, and nobody else is: not their neighbours, not the shop."""

from __future__ import annotations

from typing import Any

import pytest
from chassis.cache import open_redis
from chassis.clock import ManualClock
from chassis.problems import Problem
from gateway.adapters.limits import UNKNOWN, Limiter, Most, block_of
from hypothesis import given
from hypothesis import strategies as st

START = 1_700_000_000_000 - 1_700_000_000_000 % 60_000
MOST = Most(person=3, block=6, key=10)


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("203.0.113.9", "203.0.113.0"), ("2001:db8:1:2::3", "2001:db8:1::"), ("::ffff:203.0.113.9", "203.0.113.0"),
        ("", UNKNOWN), ("testclient", UNKNOWN), ("203.0.113.9, 1.2.3.4", UNKNOWN), ("203.0.113.9:80", UNKNOWN),
    ],
)  # fmt: skip
def test_neighbours_are_those_who_share_a_block(address: str, block: str) -> None:
    assert block_of(address) == block


@given(st.text(max_size=60))
def test_whatever_is_said_has_a_block_that_is_short(said: str) -> None:
    assert len(block_of(said)) <= 39


@pytest.mark.servers
class TestTake:
    @pytest.fixture
    async def limiter(self, redis_url: str) -> Any:
        redis = open_redis(redis_url)
        self.clock = ManualClock(START)
        yield Limiter(redis, self.clock, MOST)
        await redis.aclose()

    async def taken(self, limiter: Limiter, times: int, **who: str | None) -> int:
        """How many of so many requests are answered."""
        answered, refused = 0, set[tuple[int, str]]()
        for _ in range(times):
            try:
                await limiter.take("k", **{"person": None, "address": None, **who})  # type: ignore[arg-type]
            except Problem as problem:
                refused.add((problem.status, problem.headers["retry-after"]))
            else:
                answered += 1
        assert refused <= {(429, "60")}
        return answered

    async def test_a_person_silences_no_neighbour_and_no_shop(self, limiter: Limiter) -> None:
        assert await self.taken(limiter, 5, person="a", address="203.0.113.1") == 3
        assert await self.taken(limiter, 1, person="b", address="203.0.113.2") == 1

    async def test_a_neighbourhood_silences_no_other_and_no_shop(self, limiter: Limiter) -> None:
        assert await self.taken(limiter, 50, address="203.0.113.1") == 6
        assert await self.taken(limiter, 1, address="203.0.113.2") == 0
        assert await self.taken(limiter, 50, address="198.51.100.1") == 4, "what the key has left"

    async def test_a_server_has_as_much_as_its_key(self, limiter: Limiter) -> None:
        assert await self.taken(limiter, 12) == 10

    async def test_it_is_over_with_the_minute(self, limiter: Limiter) -> None:
        assert await self.taken(limiter, 5, person="a") == 3
        self.clock.advance(60_000)
        assert await self.taken(limiter, 5, person="a") == 3
