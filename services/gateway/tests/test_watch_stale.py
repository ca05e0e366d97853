"""What is known to be behind is followed for a moment and no longer: it may have ended something."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from gateway.adapters.upstreams import CONTENT, PROMO, SEGMENT
from gateway.flows import knowledge as of_knowledge
from gateway.flows import watch
from gateway.flows.knowledge import SURE_S, Knowledge
from gateway.flows.watch import Watcher
from watched import VIP, Shop, asked, soon_s, told


class TestStale:
    """What may have ended meanwhile is shown for a moment and no longer."""

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watch, "HELD_S", 0.05)
        monkeypatch.setattr(watch, "LATE_S", 0.15)

    @pytest.mark.parametrize("kind", range(3))
    async def test_of_what_cannot_be_had_nothing_is_shown_until_it_is_here(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher, kind: int
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        assert knowledge.release.stale == frozenset()
        service, newer = (SEGMENT, CONTENT, PROMO)[kind], [1, 5, 1]
        newer[kind] += 1
        shop.lost = service
        watcher.seen(told(*newer), soon_s())
        assert await watcher.look() is True
        assert knowledge.release.stale == frozenset(), "it may be on its way"
        await asyncio.sleep(0.06)
        with pytest.raises(httpx.ConnectError):
            await watcher.look()
        release = knowledge.release
        assert (release.stale, release.content["version"]) == ({kind}, 5), "which slots there are is still known"
        knowledge.kill(frozenset({"block:b"}))  # what is made anew is not made whole
        assert knowledge.release.stale == {kind}
        shop.lost, shop.versions[service] = "", newer[kind]
        assert await watcher.look() is False
        assert (knowledge.release.stale, knowledge.release.versions) == (frozenset(), tuple(newer))

    async def test_a_service_that_answers_has_longer_to_answer_anew(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        watcher.seen(told(1, 6, 1), soon_s())
        await asyncio.sleep(0.06)
        assert await watcher.look() is True
        assert knowledge.release.stale == frozenset()
        await asyncio.sleep(0.1)
        assert await watcher.look() is True
        assert knowledge.release.stale == {1}

    async def test_one_that_is_a_little_behind_all_the_time_is_never_far_behind(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        for version in range(6, 16):  # it says of itself what was the newest 0.03 s ago
            watcher.seen(told(1, version, 1), soon_s())
            shop.versions[CONTENT] = version - 1
            await watcher.look()
            assert (knowledge.release.stale, knowledge.release.versions[1]) == (frozenset(), version - 1)
            await asyncio.sleep(0.03)

    async def test_how_long_counts_from_when_the_version_was_spoken_of_and_not_from_the_last_one(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        watcher.seen(told(1, 6, 1), soon_s())
        watcher.seen(told(1, 7, 1), soon_s())
        await asyncio.sleep(0.16)
        shop.versions[CONTENT] = 6
        await watcher.look()
        assert (knowledge.release.stale, knowledge.release.versions) == ({1}, (1, 6, 1))

    async def test_when_there_is_nothing_newer_after_all_it_is_followed_again(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        watcher.seen(told(1, 9, 1), soon_s())  # somebody wrote there who should not have
        await asyncio.sleep(0.16)
        await watcher.look()
        assert knowledge.release.stale == {1}
        watcher.seen(told(1, 5, 1), soon_s())
        assert not knowledge.is_newest(await asked(knowledge, 1, 5, 1))
        await watcher.look()
        assert knowledge.release.stale == frozenset()
        assert knowledge.is_newest(await asked(knowledge, 1, 5, 1))

    async def test_a_service_that_is_away_while_nothing_is_new_costs_nothing(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        shop.lost = CONTENT
        await asyncio.sleep(0.16)
        assert await watcher.look() is False
        assert knowledge.release.stale == frozenset()


class TestUnknownNeeds:
    """It was saved while nobody could say which segments there were."""

    async def test_it_waits_for_the_newest_ones(self, shop: Shop, knowledge: Knowledge, watcher: Watcher) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await asked(knowledge, 1, 5, 1)
        await watcher.look()
        shop.versions[CONTENT], shop.needs = 6, None
        watcher.seen(told(1, 6, 1), soon_s())
        await asked(knowledge, 2, 6, 1)
        await watcher.look()
        assert knowledge.release.versions == (1, 5, 1)
        shop.versions[SEGMENT] = 2
        await watcher.look()
        assert knowledge.release.versions == (2, 6, 1)

    async def test_once_they_were_here_it_asks_for_no_more(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        shop.needs, shop.segments = None, [VIP]
        watcher.seen(told(1, 5, 1), soon_s())
        await asked(knowledge, 1, 5, 1)
        await watcher.look()
        await asked(knowledge, 1, 5, 1, ago_s=SURE_S)
        shop.versions[PROMO], shop.lost = 2, SEGMENT
        watcher.seen(told(1, 5, 2), soon_s())
        await watcher.look()
        assert (knowledge.release.versions, knowledge.release.stale) == ((1, 5, 2), frozenset())


class TestDoubt:
    """Nobody has spoken for a while: we were stopped, or are cut off. What was known then may have ended."""

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(of_knowledge, "DOUBT_S", 0.1)

    async def test_who_was_stopped_shows_nothing_until_everything_was_asked_for_anew(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        await asked(knowledge, 1, 5, 1)
        release = knowledge.current()
        assert release.stale == frozenset()
        time.sleep(0.15)
        watcher.seen(told(1, 5, 1), soon_s() - 0.15)  # the answer to what was asked before
        assert knowledge.current().stale == {0, 1, 2}
        assert knowledge.outdated.is_set()
        await watcher.look()
        assert (knowledge.current().stale, knowledge.current().versions) == (frozenset(), (1, 5, 1))

    async def test_the_news_of_what_ended_meanwhile_is_no_reason_to_show_it(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        time.sleep(0.15)  # as above
        shop.versions[CONTENT] = 6
        await asked(knowledge, 1, 6, 1)
        watcher.seen(told(1, 6, 1), soon_s())
        assert knowledge.current().stale == {0, 1, 2}, "though it is known from now on that it is behind"
        await watcher.look()
        assert (knowledge.current().stale, knowledge.current().versions) == (frozenset(), (1, 6, 1))

    @pytest.mark.parametrize("kind", range(3))
    async def test_of_what_cannot_be_asked_for_nothing_is_shown_and_the_rest_is(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher, kind: int
    ) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        for _ in range(4):  # Redis says nothing any more
            await asyncio.sleep(0.04)
            for other in {0, 1, 2} - {kind}:
                knowledge.hear(other, (1, 5, 1)[other], soon_s())
        shop.lost = (SEGMENT, CONTENT, PROMO)[kind]
        assert knowledge.current().stale == {kind}
        before = shop.asked
        with pytest.raises(httpx.ConnectError):
            await watcher.look()
        assert (knowledge.current().stale, shop.asked) == ({kind}, before + 1), "the others are not asked again"
        shop.lost = ""
        await watcher.look()
        assert knowledge.current().stale == frozenset()

    async def test_one_who_speaks_of_all_is_enough(self, shop: Shop, knowledge: Knowledge, watcher: Watcher) -> None:
        watcher.seen(told(1, 5, 1), soon_s())
        await watcher.look()
        for _ in range(5):
            await asyncio.sleep(0.05)
            watcher.seen(told(1, 5, 1), soon_s())
            assert knowledge.current().stale == frozenset()
