"""Whatever stands in Redis: what cannot be read is not known, and the next write goes over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from chassis.cache import VersionedWriter, number_at, open_redis, raise_to, replace, versioned
from structlog.testing import capture_logs

ODD = ["", "x1", "12.5", "-1", "1e3", "0x10", "inf", "nan", " 7", "9" * 23, "\u0663", "{}"]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.mark.servers
class TestNumbers:
    async def test_a_number_only_rises(self, redis: Any) -> None:
        assert await number_at(redis, "n") is None
        assert [await raise_to(redis, "n", value) for value in (9, 10, 2)] == [9, 10, 10]
        assert await number_at(redis, "n") == 10

    @pytest.mark.parametrize("text", ODD)
    async def test_what_is_none_is_not_known_and_written_over(self, redis: Any, text: str) -> None:
        await redis.set("n", text)
        with capture_logs() as logs:
            assert await number_at(redis, "n") is None
            assert await raise_to(redis, "n", 3) == 3
        assert [(line["event"], line["key"]) for line in logs] == [("redis_unreadable", "n")] * 2
        assert await number_at(redis, "n") == 3

    async def test_so_is_one_that_nobody_can_have_come_to(self, redis: Any) -> None:
        await redis.set("n", 3 + 10**9)
        assert await raise_to(redis, "n", 3) == 3 + 10**9
        for far in (4 + 10**9, 10**15 - 1):
            await redis.set("n", far)
            with capture_logs() as logs:
                assert await raise_to(redis, "n", 3) == 3
            assert [(line["event"], line["key"]) for line in logs] == [("redis_unreadable", "n")]
            assert await number_at(redis, "n") == 3

    async def test_so_is_what_is_no_text(self, redis: Any) -> None:
        await redis.rpush("n", 7)
        assert await number_at(redis, "n") is None
        assert await raise_to(redis, "n", 3) == 3
        assert await number_at(redis, "n") == 3

    async def test_while_the_server_does_not_say_nothing_is_known(self) -> None:
        away = open_redis("redis://127.0.0.1:1/0")
        assert await number_at(away, "n") is None
        await away.aclose()


@pytest.mark.servers
class TestReplaced:
    async def test_only_what_is_expected_there_is_replaced(self, redis: Any) -> None:
        assert not await replace(redis, "t", "mine", "new")
        assert await replace(redis, "t", "", "mine", for_s=30)
        assert 0 < await redis.ttl("t") <= 30
        assert not await replace(redis, "t", "theirs", "new")
        assert await replace(redis, "t", b"mine", b"new")
        assert (await redis.get("t"), await redis.ttl("t")) == (b"new", -1)
        await redis.delete("t")
        await redis.rpush("t", "mine")
        assert not await replace(redis, "t", "mine", "new")


@pytest.mark.servers
class TestProjection:
    async def test_an_old_version_never_wins(self, redis: Any) -> None:
        writer = VersionedWriter(redis)
        await writer.put_many([("k", 300, b"new"), ("k", 2, b"old"), ("k", 299, b"older")])
        assert (await redis.get("k"))[8:] == b"new"
        await writer.put_many([("k", 300, b"same"), ("k", 70_000, b"newest")])
        assert (await redis.get("k"))[8:] == b"newest"

    async def test_what_nobody_wrote_so_is_written_over_and_holds_up_nothing_beside_it(self, redis: Any) -> None:
        await redis.rpush("list", 1)
        await redis.mset({"text": "a text that says nothing", "short": "x"})
        keys = ("list", "text", "short", "fine")
        await VersionedWriter(redis).put_many([(key, 5, b"here") for key in keys])
        assert await redis.mget(keys) == [versioned(5, b"here")] * 4
