"""The list of what is killed: whatever becomes of it in Redis, the copies are the list, and it takes what it has room for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from chassis.problems import Problem
from chassis.schemas import MOST_KILLED
from gateway.flows.kill import COUNT, GATEWAYS, KILLS, LAST, LIST
from killing import KILL, Gateway

pytestmark = pytest.mark.servers


async def odd(redis: Any, key: str, how: str) -> None:
    """Something that is none of ours stands under a key."""
    await redis.delete(key)
    await (redis.rpush(key, "x") if how == "another type" else redis.set(key, how))


@pytest.mark.parametrize(
    ("key", "how"),
    [
        *((key, "another type") for key in (KILLS, COUNT, LIST, LAST, GATEWAYS)), (KILLS, "x"), (GATEWAYS, "x"),
        *((COUNT, text) for text in ("abc", "12.5", "9" * 30, "")), (LIST, "x"), (LAST, "x"),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_of_it_is_made_of_the_copies(redis: Any, key: str, how: str) -> None:
    one, two = Gateway(redis), Gateway(redis)
    await one.look()
    await one.killer._store("slot:a", KILL)
    assert [await one.look(), await two.look()] == [{"slot:a"}] * 2
    await odd(redis, key, how)
    assert [await two.look(), await one.look(), await two.look()] == [{"slot:a"}] * 3
    count = await one.killer._store("slot:b", KILL)
    assert count is not None
    assert [await one.look(), await two.look()] == [{"slot:a", "slot:b"}] * 2
    assert await one.killer._missing(count) == []
    assert [kill["key"] for kill in await two.killer.listed()] == ["a", "b"]
    late = Gateway(redis)
    assert await late.look() == {"slot:a", "slot:b"}


async def test_who_has_no_copy_forgets_nothing_that_can_be_read(redis: Any) -> None:
    first = Gateway(redis)
    await first.killer._store("slot:a", KILL)
    await odd(redis, COUNT, "abc")
    assert await Gateway(redis).look() == {"slot:a"}


async def test_what_is_no_kill_is_none_and_one_without_an_author_is_one(redis: Any) -> None:
    gateway = Gateway(redis)
    await redis.hset(KILLS, mapping={b"\xff": "{}", "x": "1", "person:ann": "[]", "slot:a": b"\xff"})
    assert await gateway.look() == {"slot:a"}
    assert await gateway.killer.listed() == [{"kind": "slot", "key": "a", "by": "", "at_ms": 0, "owed": False}]


async def test_a_gateway_whose_own_word_cannot_be_read_has_not_taken_a_kill(redis: Any) -> None:
    gateway = Gateway(redis)
    await gateway.look()
    await redis.set(f"gateway:{gateway.killer._id}", "9.5")
    assert await gateway.killer._missing(1) == [gateway.killer._id]


async def test_of_many_at_once_as_many_are_stored_as_there_is_room_for(redis: Any) -> None:
    killers = [Gateway(redis).killer for _ in range(2)]
    await redis.hset(KILLS, mapping={f"block:k{n}": "{}" for n in range(MOST_KILLED - 3)})
    stored = await asyncio.gather(
        *(killers[n % 2]._store(f"block:new{n}", KILL) for n in range(20)), return_exceptions=True
    )
    assert sorted(count for count in stored if isinstance(count, int)) == [1, 2, 3]
    assert {(e.slug, e.status) for e in stored if isinstance(e, Problem)} == {("kills-full", 409)}
    assert await redis.hlen(KILLS) == MOST_KILLED
    assert await killers[0]._store("block:k0", KILL) == 4, "one that is there is there"
