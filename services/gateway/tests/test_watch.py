"""Whose word counts for what is known: that of who answers, not that of Redis; and when it counts for certain."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest
from chassis.clock import SystemClock
from chassis.health import Health
from gateway.adapters.upstreams import CONTENT, PROMO, SEGMENT
from gateway.flows import watch
from gateway.flows.knowledge import SURE_S, Knowledge
from gateway.flows.watch import Watcher
from structlog.testing import capture_logs
from watched import VIP, Shop, asked, soon_s, told


class TestFirst:
    """What is known of the others when a gateway starts while one service is away."""

    @pytest.mark.parametrize("lost", [SEGMENT, PROMO])
    async def test_one_that_is_away_keeps_nothing_from_the_others_and_is_followed_when_it_comes(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher, lost: str
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        shop.lost = lost
        kind = {SEGMENT: 0, PROMO: 2}[lost]
        for _ in range(3):
            with pytest.raises(httpx.ConnectError):
                await watcher.look()
            versions = [1, 5, 1]
            versions[kind] = 0
            assert (knowledge.loaded, knowledge.release.versions) == (True, tuple(versions))
            assert set(knowledge.release.stale) == {kind}
            assert kind not in {told_of for told_of, _ in shop.told}
        shop.lost = ""
        assert await watcher.look() is False
        assert (knowledge.release.versions, set(knowledge.release.stale)) == ((1, 5, 1), set())
        assert (kind, 1) in shop.told

    async def test_without_content_nothing_is_known(self, shop: Shop, knowledge: Knowledge, watcher: Watcher) -> None:
        shop.lost = CONTENT
        with pytest.raises(httpx.ConnectError):
            await watcher.look()
        assert not knowledge.is_any

    async def test_a_service_that_has_published_nothing_yet_is_heard(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        shop.versions[PROMO], shop.lost = 0, PROMO
        with pytest.raises(httpx.ConnectError):
            await watcher.look()
        shop.lost = ""
        await watcher.look()
        assert set(knowledge.release.stale) == set()


class TestLag:
    async def test_an_answer_of_before_the_publish_is_asked_for_again_until_it_is_of_after_it(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        assert await watcher.look() is False
        assert shop.told == [(0, 1), (1, 5), (2, 1)]
        shop.told.clear()
        watcher.seen(told(1, 6, 1), soon_s())
        for _ in range(3):
            assert await watcher.look() is True
            assert (knowledge.release.versions, shop.told) == ((1, 5, 1), [])
        shop.versions[CONTENT] = 6
        assert await watcher.look() is False
        assert (knowledge.release.versions, shop.told) == ((1, 6, 1), [(1, 6)])
        before = shop.asked
        watcher.seen(told(1, 6, 1), soon_s())
        assert await watcher.look() is False
        assert shop.asked == before

    async def test_while_one_lags_nothing_that_was_made_is_thrown_away(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 6, 1), soon_s())
        await watcher.look()
        release = knowledge.release
        await watcher.look()
        assert knowledge.release is release

    async def test_an_older_copy_does_not_bring_back_what_was_replaced(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        shop.versions.update({CONTENT: 4, PROMO: 2})
        watcher.seen(told(1, 6, 2), soon_s())
        await watcher.look()
        assert knowledge.release.versions == (1, 5, 2)

    async def test_of_what_nobody_can_read_nobody_has_spoken_and_the_others_go_on(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        began_s = soon_s()
        with capture_logs() as logs:
            watcher.seen([b"2", b"12.5", None], began_s + 100.0)
        assert [(line["event"], line["key"]) for line in logs] == [("redis_unreadable", "ver:content")]
        assert (knowledge.newest(0), knowledge.is_behind(0)) == (2, True)
        for kind, spoken_of in ((0, True), (1, False), (2, False)):
            assert (knowledge._good_s[kind] > began_s + 100.0) is spoken_of, kind

    async def test_a_database_and_redis_that_went_back_together_are_believed(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await asked(knowledge, 1, 5, 1)
        await watcher.look()
        shop.versions[CONTENT] = 3
        watcher.seen(told(1, 3, 1), soon_s())
        assert await watcher.look() is False
        assert knowledge.release.versions == (1, 5, 1), "its own head is still what it was"
        await asked(knowledge, 1, 3, 1)
        assert await watcher.look() is False
        assert knowledge.release.versions == (1, 3, 1)

    @pytest.mark.parametrize("versions", [told(0, 0, 0), told(1, 4, 1)])
    async def test_a_redis_that_lost_the_versions_brings_nothing_back(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher, versions: list[bytes | None]
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        now_s = await asked(knowledge, 1, 5, 1)
        watcher.seen(versions, soon_s())
        before = shop.asked
        assert await watcher.look() is False
        assert (knowledge.release.versions, knowledge.is_newest(now_s), shop.asked) == ((1, 5, 1), True, before)

    async def test_what_a_service_says_of_its_head_is_followed_before_redis_says_so(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        shop.versions[CONTENT] = 6
        stop = asyncio.Event()
        asking = asyncio.create_task(watcher.heads(stop))
        async with asyncio.timeout(5):
            await knowledge.outdated.wait()
        stop.set()
        await asking
        assert await watcher.look() is False
        assert (knowledge.release.versions, knowledge.outdated.is_set()) == ((1, 6, 1), False)

    async def test_content_waits_for_the_segments_it_names_and_keeps_no_other_waiting(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        shop.versions.update({CONTENT: 6, PROMO: 2})
        shop.needs = 2
        watcher.seen(told(1, 6, 2), soon_s())
        assert await watcher.look() is True
        assert knowledge.release.versions == (1, 5, 2)
        shop.versions[SEGMENT] = 2
        watcher.seen(told(2, 6, 2), soon_s())
        assert await watcher.look() is False
        assert knowledge.release.versions == (2, 6, 2)

    @pytest.mark.parametrize("how", ["lost", "behind"])
    async def test_it_does_not_wait_for_long_for_it_may_end_something(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        monkeypatch.setattr(watch, "HELD_S", 0.05)
        shop.segments = [VIP]
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        assert knowledge.release.definitions.undefined(["vip"], "main") == ()
        shop.versions[CONTENT], shop.needs = 6, 2
        watcher.seen(told(2, 6, 1), soon_s())
        shop.lost = SEGMENT if how == "lost" else ""
        if how == "behind":
            assert await watcher.look() is True
            assert knowledge.release.versions == (1, 5, 1)
            await asyncio.sleep(0.06)
            await watcher.look()
        else:
            with pytest.raises(httpx.HTTPError):
                await watcher.look()
        assert knowledge.release.versions == (0, 6, 1)
        assert knowledge.release.definitions.undefined(["vip"], "main") == ("vip",), "nobody is known to be in or out"
        assert (1, 6) in shop.told, "what ended is forgotten at the edge"
        release = knowledge.release
        with contextlib.suppress(httpx.HTTPError):
            await watcher.look()
        assert knowledge.release is release, "nothing is made anew while nothing is new"
        assert not knowledge.is_newest(await asked(knowledge, 2, 6, 1))
        shop.lost, shop.versions[SEGMENT] = "", 2
        assert await watcher.look() is False
        assert knowledge.release.versions == (2, 6, 1)
        assert knowledge.release.definitions.undefined(["vip"], "main") == ()

    async def test_a_gateway_that_starts_while_segments_are_behind_knows_of_none(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        shop.segments, shop.needs = [VIP], 2
        watcher.seen(told(2, 5, 1), soon_s())
        await watcher.look()
        assert knowledge.release.versions == (0, 5, 1)
        assert knowledge.release.definitions.undefined(["vip"], "main") == ("vip",)


class TestCertain:
    async def test_nothing_is_the_newest_before_it_is_loaded(self, knowledge: Knowledge) -> None:
        assert not knowledge.is_newest(await asked(knowledge, 0, 0, 0))

    @pytest.mark.parametrize("ago_s", [0.0, SURE_S * 0.9, SURE_S])
    async def test_it_is_while_every_head_was_asked_for_a_moment_ago(
        self, knowledge: Knowledge, watcher: Watcher, ago_s: float
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        assert knowledge.is_newest(await asked(knowledge, 1, 5, 1, ago_s=ago_s)) is (ago_s < SURE_S)

    @pytest.mark.parametrize("kind", range(3))
    async def test_one_service_that_is_silent_is_enough_for_doubt(
        self, knowledge: Knowledge, watcher: Watcher, kind: int
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        now_s = await asked(knowledge, 1, 5, 1, ago_s=SURE_S)
        for other in {0, 1, 2} - {kind}:
            knowledge.hear(other, (1, 5, 1)[other], now_s)
        assert not knowledge.is_newest(now_s)
        knowledge.hear(kind, (1, 5, 1)[kind], now_s)
        assert knowledge.is_newest(now_s)

    @pytest.mark.parametrize("who", ["redis", "service"])
    async def test_who_speaks_of_something_newer_is_believed_at_once(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher, who: str
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        now_s = await asked(knowledge, 1, 5, 1)
        if who == "redis":
            watcher.seen(told(1, 6, 1), soon_s())
        else:
            knowledge.hear(1, 6, now_s)
        assert not knowledge.is_newest(now_s)
        shop.versions[CONTENT] = 6
        await watcher.look()
        assert knowledge.is_newest(now_s)


class TestApart:
    @pytest.mark.parametrize("how", ["refuses", "says nothing"])
    async def test_what_one_service_says_waits_for_no_other(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        monkeypatch.setattr(watch, "PATIENCE_S", 0.05)
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        answers = shop.json

        async def away(service: str, method: str, path: str, shape: Any, **_: Any) -> Any:
            if service == SEGMENT and how == "refuses":
                raise httpx.ConnectError("away")
            if service == SEGMENT:
                await asyncio.sleep(30)
            return await answers(service, method, path, shape)

        monkeypatch.setattr(shop, "json", away)
        shop.versions[CONTENT] = 6
        watcher.seen(told(2, 6, 1), soon_s())
        assert await watcher.look() is True
        assert (knowledge.release.versions, shop.told[-1]) == ((1, 6, 1), (1, 6))
        assert not knowledge.outdated.is_set(), "nothing new: nobody is woken out of a pause"
        monkeypatch.setattr(shop, "json", answers)
        shop.versions[SEGMENT] = 2
        assert await watcher.look() is False
        assert knowledge.release.versions == (2, 6, 1)

    async def test_documents_are_where_they_are_handed_to_whichever_redis_a_service_reaches(
        self, shop: Shop, knowledge: Knowledge
    ) -> None:
        shop.redis, shop.home = "here", "there"
        belongs, stop = list[str | None](), asyncio.Event()
        upstreams: Any = shop
        watcher = Watcher(knowledge, upstreams, shop.changed, belongs.append, SystemClock(), health := Health())
        running = asyncio.ensure_future(watcher.heads(stop))
        async with asyncio.timeout(5):
            while not belongs:
                await asyncio.sleep(0.01)
        assert "redis home" in health.troubles()
        shop.redis = "there"
        async with asyncio.timeout(5):
            while "redis home" in health.troubles():
                await asyncio.sleep(0.01)
        stop.set()
        await running
        assert set(belongs) == {"there"}
