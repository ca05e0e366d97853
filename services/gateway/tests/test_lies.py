"""A service that says something odd once, or never ends saying it, is as one that is away: it is asked again, and keeps nobody
else waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
import pytest
from chassis.auth import ServiceTokens
from chassis.clock import SystemClock
from chassis.health import Health
from devstack.odd import places, put
from gateway.adapters import upstreams
from gateway.adapters.upstreams import CONTENT, PROMO, SEGMENT, Coalescer, Upstreams
from gateway.domain import said
from gateway.domain.debts import debts_of, lines
from gateway.domain.dimensions import Seen
from gateway.flows import watch
from gateway.flows.knowledge import Knowledge
from gateway.flows.watch import Watcher
from watched import VIP, Shop, soon_s, told

ODD = (None, True, -1, 10**16, 0.5, "", "\n", "x", [], [None], {}, {"x": None})
LATE = {**VIP, "id": 2, "key": "late", "atom": None, "residual": {"context": "hour", "op": "gte", "value": 9}}
CHANGE = {"version": 2, "tags": ["slot:top"], "websites": ["de"], "needs": 1, "hard": True}
AUDIENCE = {"websites": [], "segments": ["vip"], "groups": ["gold"], "boundaries": [5]}
SLOT = {"websites": [], "locales": ["*"], "default": {"*": "x"}, "tags": ["slot:top"], "audiences": [AUDIENCE]}
TRUTH: dict[str, dict[str, Any]] = {
    SEGMENT: {
        "version": 2, "empty": {"visitor": "", "customer": "00"}, "segments": [VIP, LATE],
        "changes": [{"version": 2, "tags": ["segment:vip"]}],
    },
    CONTENT: {"version": 2, "slots": {"top": SLOT}, "changes": [CHANGE]},
    PROMO: {"version": 2, "rules": [AUDIENCE], "segments": ["vip"], "changes": [CHANGE]},
}  # fmt: skip
SELECTED = {
    "version": 2, "slots": {"top": {"fallback": False, "blocks": [{"key": "b", "content": {"a": 1}}]}}, "tags": ["slot:top"],
    "next_change_at": 5,
}  # fmt: skip


def lies(truth: Any) -> Iterator[Any]:
    """The truth with one thing in it gone, or odd."""
    for path in places(truth):
        yield from (put(truth, path, odd) for odd in ODD)
        if path:
            lie = put(truth, path, None)
            inside = lie
            for step in path[:-1]:
                inside = inside[step]
            del inside[path[-1]]
            yield lie


class Services:
    """Answer with what they are given, once, then with the truth."""

    def __init__(self) -> None:
        self.once: dict[str, bytes] = {}
        self.made = Upstreams(dict.fromkeys(TRUTH, "http://service"), ServiceTokens("s" * 32, "gateway"))
        for name in TRUTH:
            transport = httpx.MockTransport(lambda _, name=name: httpx.Response(200, content=self.says(name)))
            self.made._clients[name] = httpx.AsyncClient(transport=transport, base_url="http://service")

    def says(self, name: str) -> bytes:
        return self.once.pop(name, None) or json.dumps(TRUTH[name]).encode()


@pytest.mark.parametrize("service", TRUTH)
async def test_what_is_said_after_something_odd_is_followed(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RETRY_S", 0.0)
    services, followed, tried = Services(), 0, 0
    for lie in lies(TRUTH[service]):
        knowledge, news = Knowledge(), list[tuple[int, Mapping[str, Any]]]()
        watcher = Watcher(
            knowledge, services.made, lambda *new, news=news: news.append(new), lambda _: None, SystemClock(), Health()
        )  # fmt: skip
        services.once[service], tried = json.dumps(lie).encode(), tried + 1
        watcher.seen(told(2, 2, 2), soon_s())
        for _ in range(3):
            try:
                await watcher.look()
            except httpx.HTTPError:
                continue
        release = knowledge.release
        assert (knowledge.loaded, release.versions) == (True, (2, 2, 2))
        release.plan("de", ["top"], "*"), release.codes("de", Seen(0, "gold"))
        for _, new in news:
            assert all(line.isprintable() for _, line in lines(debts_of(new, 1, ["de"], 0.0), 2.0))
        followed += not services.once
    assert followed == tried > 100


async def test_what_reads_well_and_cannot_be_followed_is_lost_and_over_in_a_moment(
    shop: Shop, watcher: Watcher, knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "HELD_S", 0.0)
    watcher.seen(told(1, 5, 1), soon_s())
    await watcher.look()
    swap = knowledge.swap

    def fails(definitions: Any, content: Any, promo: Any, stale: Any = ()) -> None:
        if content["version"] == 6:
            raise KeyError("slots")
        swap(definitions, content, promo, stale)

    monkeypatch.setattr(knowledge, "swap", fails)
    shop.versions.update({CONTENT: 6, PROMO: 2})
    watcher.seen(told(1, 6, 2), soon_s())
    with pytest.raises(KeyError):
        await watcher.look()
    assert set(knowledge.release.stale) == {1, 2}, "what may have ended is not shown"
    monkeypatch.setattr(knowledge, "swap", swap)
    await watcher.look()
    assert (knowledge.release.versions, set(knowledge.release.stale)) == ((1, 6, 2), set())


async def test_an_odd_selection_is_none(services: Services) -> None:
    asked = Coalescer(services.made, CONTENT, "/v1/select-many", said.Many[said.Selected], most_s=1.0)
    for lie in lies({"answers": [SELECTED]}):
        services.once[CONTENT] = json.dumps(lie).encode()
        try:
            found = await asked.ask({})
        except httpx.HTTPError:
            continue
        assert set(found) >= {"version", "slots", "tags", "next_change_at"}
        assert all(tag.isprintable() and tag for tag in found["tags"])
        assert all({"key", "content"} == set(b) for slot in found["slots"].values() for b in slot["blocks"])
    for text in (
        b"",
        b"\xff",
        b"[" * 5000,
        b'{"answers":[{"version":1,"slots":{"\\ud800":{}},"tags":[],"next_change_at":null}]}',
    ):
        services.once[CONTENT] = text or b" "
        with pytest.raises(httpx.HTTPError):
            await asked.ask({})


@pytest.fixture
def services() -> Services:
    return Services()


class Drips(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)


async def test_an_answer_that_never_ends_keeps_its_place_no_longer_than_anybody_waits(services: Services) -> None:
    dripping, good = 2, json.dumps({"answers": [SELECTED]}).encode()

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal dripping
        dripping -= 1
        return httpx.Response(200, stream=Drips()) if dripping >= 0 else httpx.Response(200, content=good)

    services.made._clients[CONTENT] = httpx.AsyncClient(
        transport=httpx.MockTransport(answer), base_url="http://service"
    )
    asked = Coalescer(services.made, CONTENT, "/v1/select-many", said.Many[said.Selected], most_s=0.1)
    first = []
    for n in range(2):
        first.append(asyncio.ensure_future(asked.ask({"n": n})))
        await asyncio.sleep(0.02)
    async with asyncio.timeout(5):
        assert (await asked.ask({"n": 3}))["version"] == 2
        assert all(isinstance(e, httpx.HTTPError) for e in await asyncio.gather(*first, return_exceptions=True))


async def test_whoever_waits_is_told_whatever_goes_wrong(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise TypeError

    monkeypatch.setattr(upstreams, "read", fails)
    asked = Coalescer(services.made, CONTENT, "/v1/select-many", said.Many[said.Selected], most_s=0.1)
    async with asyncio.timeout(5):
        with pytest.raises(httpx.HTTPError):
            await asked.ask({})
