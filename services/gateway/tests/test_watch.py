"""Whose word counts for what is known: that of who answers, not that of Redis."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import httpx
import pytest
from chassis.asking import let_go
from chassis.health import Health
from gateway import watch
from gateway.upstreams import CONTENT, PROMO, SEGMENT
from gateway.watch import Knowledge, Watcher

EDGE = "http://edge"


class Shop:
    """Three services, a Redis and an edge, all as they are told to be."""

    def __init__(self) -> None:
        self.versions = {SEGMENT: 1, CONTENT: 5, PROMO: 1}
        self.asked = 0
        self.stored: dict[str, int] = {}
        self.purged: list[set[str]] = []

    async def json(self, service: str, method: str, path: str) -> dict[str, Any]:
        self.asked += 1
        version = self.versions[service]
        changes = [{"version": v, "tags": [f"{service}:{v}"]} for v in range(1, version + 1)]
        common = {"version": version, "changes": changes, "segments": []}
        return {**common, "empty": {"visitor": "", "customer": ""}, "slots": {}, "groups": False, "boundaries": []}

    async def get(self, name: str) -> int | None:
        return self.stored.get(name)

    async def set(self, name: str, version: int) -> None:
        self.stored[name] = version

    def take(self, request: httpx.Request) -> httpx.Response:
        self.purged.append(set(request.headers["xkey-purge"].split()))
        return httpx.Response(200)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    made, client = Shop(), httpx.AsyncClient
    transport = httpx.MockTransport(made.take)
    monkeypatch.setattr(watch.httpx, "AsyncClient", lambda **more: client(transport=transport, **more))
    monkeypatch.setattr(watch, "RETRY_S", 0.0)
    return made


@pytest.fixture
def knowledge() -> Knowledge:
    return Knowledge()


@pytest.fixture
def watcher(shop: Shop, knowledge: Knowledge) -> Watcher:
    return Watcher(knowledge, shop, shop, ((EDGE,), "s"), Health())  # type: ignore[arg-type]


def told(segment: int, content: int, promo: int) -> list[bytes | None]:
    return [b"%d" % version if version else None for version in (segment, content, promo)]


async def test_what_an_edge_was_asked_is_gone_at_once(
    watcher: Watcher, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list[weakref.ref[httpx.Response]]()

    def seen(answer: httpx.Response) -> httpx.Response:
        kept.append(weakref.ref(answer))
        return let_go(answer)

    monkeypatch.setattr(watch, "let_go", seen)
    monkeypatch.setattr(watch.httpx, "AsyncClient", None)  # it has its client, and makes no other
    gc.disable()
    try:
        for version in range(6, 12):
            shop.versions[CONTENT] = version
            watcher.seen(told(1, version, 1))
            await watcher.look()
        assert [ref() for ref in kept] == [None] * 8
    finally:
        gc.enable()


class TestLag:
    async def test_an_answer_of_before_the_publish_is_asked_for_again_until_it_is_of_after_it(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1))
        assert await watcher.look() is False
        shop.purged.clear()
        watcher.seen(told(1, 6, 1))
        for _ in range(3):
            assert await watcher.look() is True
            assert (knowledge.content["version"], shop.purged) == (5, [])
        shop.versions[CONTENT] = 6
        assert await watcher.look() is False
        assert (knowledge.content["version"], shop.purged) == (6, [{f"{CONTENT}:6"}])
        asked = shop.asked
        watcher.seen(told(1, 6, 1))
        assert await watcher.look() is False
        assert shop.asked == asked

    async def test_while_one_lags_nothing_that_was_made_is_thrown_away(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 6, 1))
        await watcher.look()
        answers = knowledge.answers
        await watcher.look()
        assert knowledge.answers is answers

    async def test_an_older_copy_does_not_bring_back_what_was_replaced(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1))
        await watcher.look()
        shop.versions.update({CONTENT: 4, PROMO: 2})
        watcher.seen(told(1, 5, 2))
        await watcher.look()
        assert (knowledge.content["version"], knowledge.promo["version"]) == (5, 2)

    async def test_a_database_and_redis_that_went_back_together_are_believed(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1))
        await watcher.look()
        shop.versions[CONTENT] = 3
        watcher.seen(told(1, 3, 1))
        assert await watcher.look() is False
        assert knowledge.content["version"] == 3

    @pytest.mark.parametrize("versions", [told(0, 0, 0), told(1, 4, 1)])
    async def test_a_redis_that_lost_the_versions_is_looked_into_once(
        self, shop: Shop, watcher: Watcher, versions: list[bytes | None]
    ) -> None:
        watcher.seen(told(1, 5, 1))
        await watcher.look()
        before = shop.asked
        for _ in range(3):
            watcher.seen(versions)
            assert await watcher.look() is False
        assert shop.asked == before + 3, "each of the three services, once"

    async def test_a_service_that_answered_from_a_newer_version_is_looked_into_before_redis_says_so(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher
    ) -> None:
        watcher.seen(told(1, 5, 1))
        await watcher.look()
        shop.versions[CONTENT] = 6
        knowledge.outdated.set()
        await watcher.look()
        assert (knowledge.content["version"], knowledge.outdated.is_set()) == (6, False)


class TestApart:
    @pytest.mark.parametrize("how", ["refuses", "says nothing"])
    async def test_what_one_service_says_waits_for_no_other(
        self, shop: Shop, knowledge: Knowledge, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        monkeypatch.setattr(watch, "PATIENCE_S", 0.05)
        watcher.seen(told(1, 5, 1))
        await watcher.look()
        shop.purged.clear()
        asked = shop.json

        async def away(service: str, method: str, path: str) -> dict[str, Any]:
            if service == SEGMENT and how == "refuses":
                raise httpx.ConnectError("away")
            if service == SEGMENT:
                await asyncio.sleep(30)
            return await asked(service, method, path)

        monkeypatch.setattr(shop, "json", away)
        shop.versions[CONTENT] = 6
        watcher.seen(told(1, 6, 1))
        with pytest.raises((httpx.ConnectError, TimeoutError)):
            await watcher.look()
        watcher.seen(told(1, 6, 1))
        assert not knowledge.outdated.is_set(), "nothing new: nobody is woken out of a pause"
        assert knowledge.content["version"] == 6
        assert {f"{CONTENT}:6"} in shop.purged
        monkeypatch.setattr(shop, "json", asked)
        shop.versions[SEGMENT] = 2
        assert await watcher.look() is False
        assert knowledge.definitions.version == 2

    async def test_more_tags_than_a_line_holds_are_all_of_them_and_one_kind_keeps_no_other_from_its_purge(
        self, shop: Shop, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watcher.seen(told(1, 5, 1))
        await watcher.look()
        shop.purged.clear()
        asked, taken = shop.json, shop.get

        async def tagged(service: str, method: str, path: str) -> dict[str, Any]:
            said = await asked(service, method, path)
            many = [f"slot:{'x' * 45}{n}" for n in range(200)]
            return {
                **said,
                "changes": [{**c, "tags": many if service == CONTENT else c["tags"]} for c in said["changes"]],
            }

        async def lost(name: str) -> int | None:
            if name.endswith("segment"):
                raise OSError
            return await taken(name)

        monkeypatch.setattr(shop, "json", tagged)
        monkeypatch.setattr(shop, "get", lost)
        shop.versions.update({SEGMENT: 2, CONTENT: 6, PROMO: 2})
        watcher.seen(told(2, 6, 2))
        await watcher.look()
        assert shop.purged == [{"all"}, {f"{PROMO}:2"}]
        monkeypatch.setattr(shop, "get", taken)
        await watcher.look()
        assert shop.purged[2:] == [{f"{SEGMENT}:2"}]
