"""What content-svc keeps of the list of kills is there when Redis and all gateways have lost theirs, and never in their way."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from gateway.domain.kills import Copy, Kill
from gateway.flows.kill import COUNT, KILLS, LAST, LIST
from killing import ANN, KILL, NOW_MS, Content, Gateway

pytestmark = pytest.mark.servers
BOBS = {"by": "bob", "at_ms": 7}


@pytest.fixture
def content() -> Content:
    return Content()


async def listed(gateway: Gateway) -> list[tuple[str, str, int]]:
    return [(kill["key"], kill["by"], kill["at_ms"]) for kill in await gateway.killer.listed()]


class TestRestart:
    async def test_what_everybody_else_lost_is_killed_again_by_whom_and_since_when(
        self, redis: Any, content: Content
    ) -> None:
        gateway = Gateway(redis, content)
        await gateway.look()
        await gateway.killer._store("slot:a", KILL)
        assert await gateway.settle() == {"slot:a"}
        await redis.flushall()
        again = [Gateway(redis, content) for _ in range(2)]
        assert [await gateway.settle() for gateway in again] == [{"slot:a"}] * 2
        assert await listed(again[0]) == [("a", "ann", NOW_MS)]
        assert all(gateway.kept.has(gateway.killer._copy) for gateway in again)

    async def test_what_was_lifted_stays_so(self, redis: Any, content: Content) -> None:
        gateway = Gateway(redis, content)
        await gateway.look()
        for name in ("slot:a", "slot:b"):
            await gateway.killer._store(name, KILL)
        late = Gateway(redis, content)
        assert await gateway.settle() == await late.look() == {"slot:a", "slot:b"}
        await redis.pipeline().hdel(KILLS, "slot:a").set(LAST, "x").incr(COUNT).execute()
        assert await late.killer.look() is False, "its own copy and the one it was told of are older"
        assert await gateway.settle() == late.knowledge.kills == {"slot:b"}
        await redis.flushall()
        assert await Gateway(redis, content).settle() == {"slot:b"}

    @pytest.mark.parametrize("changed", [{LIST: "m"}, {COUNT: 9}, {LAST: "y"}])
    async def test_what_somebody_changed_meanwhile_is_looked_at_again(
        self, redis: Any, changed: dict[str, Any]
    ) -> None:
        gateway = Gateway(redis)
        await redis.mset({LIST: "l", COUNT: 7, LAST: "x"})
        there = await gateway.killer._read()
        await redis.mset(changed)
        copy = Copy("k", 8, "w", {"slot:a": Kill()})
        await gateway.killer._restore(copy, there)
        assert (await redis.exists(KILLS), gateway.knowledge.kills) == (0, set())
        await gateway.killer._restore(copy, await gateway.killer._read())
        assert (await redis.hkeys(KILLS), gateway.knowledge.kills) == ([b"slot:a"], {"slot:a"})

    async def test_while_redis_has_no_list_nobody_knows_before_content_svc_has_said(
        self, redis: Any, content: Content
    ) -> None:
        content.kept.update(list="l", number=7, last="x", names={"slot:a": BOBS})
        content.says = None
        gateway = Gateway(redis, content)
        assert (await gateway.look(), gateway.knowledge.kills_known) == (set(), False)
        await gateway.killer._store("slot:b", KILL)
        await gateway.look()
        assert not gateway.knowledge.kills_known, "a kill of now says nothing of those before"
        content.back()
        assert (await gateway.settle(), gateway.knowledge.kills_known) == ({"slot:a", "slot:b"}, True)
        assert await listed(gateway) == [("a", "bob", 7), ("b", "ann", NOW_MS)]

    async def test_where_nothing_was_ever_killed_one_that_starts_later_needs_redis_alone(
        self, redis: Any, content: Content
    ) -> None:
        await Gateway(redis, content).look()
        content.says = None
        gateway = Gateway(redis, content)
        assert (await gateway.look(), gateway.knowledge.kills_known) == (set(), True)

    async def test_a_list_in_redis_is_known_at_once_and_what_it_lost_later(self, redis: Any, content: Content) -> None:
        content.kept.update(list="l", number=7, last="x", names={"slot:a": BOBS, "slot:b": BOBS})
        content.says = None
        await redis.mset({LIST: "l", COUNT: 5, LAST: "w"})
        await redis.hset(KILLS, "slot:b", "{}")
        gateway = Gateway(redis, content)
        assert (await gateway.look(), gateway.knowledge.kills_known) == ({"slot:b"}, True)
        content.back()
        assert await gateway.settle() == {"slot:a", "slot:b"}
        assert content.kept["number"] == 8


class TestHandOver:
    async def test_a_database_that_went_back_is_told_again(self, redis: Any, content: Content) -> None:
        gateway = Gateway(redis, content)
        await gateway.settle()
        before = content.kept
        await gateway.killer._store("slot:a", KILL)
        await gateway.settle()
        after, content.kept = content.kept, before
        content.back()
        await gateway.look()
        assert content.kept == after
        assert before["number"] < after["number"]
        assert list(after["names"]) == ["slot:a"]

    async def test_what_is_in_step_is_not_handed_over(self, redis: Any, content: Content) -> None:
        gateway = Gateway(redis, content)
        await gateway.settle()
        assert content.asked == ["GET", "GET", "PUT"]
        await gateway.settle()
        assert content.asked[3:] == ["GET", "GET"]

    async def test_of_two_gateways_who_knows_less_undoes_nothing(self, redis: Any, content: Content) -> None:
        behind, gateway = Gateway(redis, content), Gateway(redis, content)
        await behind.settle()
        await gateway.settle()
        await behind.kept.look()
        await gateway.killer._store("slot:a", KILL)
        await gateway.settle()
        await behind.kept.look()
        assert list(content.kept["names"]) == ["slot:a"]
        assert await behind.settle() == {"slot:a"}

    async def test_another_list_is_taken_in_once_though_nothing_can_be_handed_over(
        self, redis: Any, content: Content
    ) -> None:
        await redis.mset({LIST: "m", COUNT: 3, LAST: "w"})
        gateway = Gateway(redis, content)
        content.says = {"list": "l", "number": 7, "last": "x", "names": {"slot:a": BOBS}}
        assert await gateway.settle() == {"slot:a"}
        for _ in range(3):
            assert await gateway.settle() == {"slot:a"}
            with pytest.raises(httpx.DecodingError):
                await gateway.kept.look()
        assert await redis.mget(LIST, COUNT) == [b"m", b"8"]

    @pytest.mark.parametrize(
        "says",
        [
            {}, [], {"list": "l", "number": 7, "last": "x"}, {"list": "l", "number": 7, "last": "x", "names": {"a": BOBS}},
            {"list": "l", "number": 10**10, "last": "x", "names": {}}, {"list": "l", "number": "7", "last": "x", "names": {}},
            {"list": "l", "number": 7, "last": "x", "names": {"slot:A b": BOBS}},
            {"list": "l", "number": 7, "last": "x", "names": {"a slot:a": BOBS}},
            {"list": "l", "number": 7, "last": "x", "names": {"slot:a\n": BOBS}},
            {"list": "l", "number": -1, "last": "x", "names": {}},
            {"list": "l l", "number": 7, "last": "x", "names": {}},
            {"list": "l", "number": 7, "last": "x", "names": {f"slot:a{n}": BOBS for n in range(5001)}},
        ],
    )  # fmt: skip
    async def test_what_does_not_look_so_says_nothing_and_hinders_no_kill(
        self, redis: Any, content: Content, says: Any
    ) -> None:
        content.says = says
        starting = Gateway(redis, content)
        assert (await starting.look(), starting.knowledge.kills_known) == (set(), False)
        content.back()
        gateway = Gateway(redis, content)
        await gateway.settle()
        content.says = says
        await gateway.killer._store("slot:k", KILL)
        assert await gateway.look() == {"slot:k"}
        assert not gateway.kept.has(gateway.killer._copy)
        content.back()
        await gateway.look()
        assert gateway.kept.has(gateway.killer._copy)


class TestSaid:
    """A kill, and that it was lifted, are told of when they are kept."""

    @pytest.mark.parametrize("away", [False, True])
    async def test_a_kill_says_whether_the_database_has_it(self, redis: Any, content: Content, away: bool) -> None:
        gateway = Gateway(redis, content)
        async with gateway.running():
            if away:
                content.says = None
            said = (await gateway.killer.kill("slot:a", actor=ANN)).view()
            assert (said["done"], said["missing"]["database"]) == (not away, away)
            content.back()
            await gateway.killer.lift("slot:a")
            assert content.kept["names"] == {}
            assert content.kept["number"] >= 3

    async def test_that_it_cannot_be_handed_over_is_said(self, redis: Any, content: Content) -> None:
        gateway = Gateway(redis, content)
        content.says = None
        async with gateway.running():
            await gateway.until(lambda: "watch kills kept" in gateway.health.troubles())
            content.back()
            await gateway.until(lambda: not gateway.health.troubles())
