"""By which release promo-svc is asked for a shopper, and that nobody is asked for whom nothing is known."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import pytest
from chassis.turns import Turns
from gateway.adapters.keys import ApiKey
from gateway.flows import cart
from gateway.flows.knowledge import Knowledge
from gateway.flows.people import Who
from gateway.flows.promotions import Shopper, ask
from gateway.routes import shop
from rigged import release

SHOPPER = Shopper(Who(), "main", 1, {})


class Promo:
    """Answers by one version only; `then` happens while it is asked for another one."""

    def __init__(self, version: int, then: Any = None) -> None:
        self.version, self.then, self.asked = version, then, []

    async def send(self, service: str, method: str, path: str, *, json: dict[str, Any], **_: Any) -> httpx.Response:
        self.asked.append(json)
        if json["version"] == self.version:
            return httpx.Response(200, json={})
        if self.then is not None:
            asyncio.get_running_loop().call_later(0.01, self.then)
        return httpx.Response(412)


def house(promo: Promo) -> tuple[Any, Knowledge]:
    knowledge = Knowledge()
    decider = SimpleNamespace(knowledge=knowledge, budget_s=0.1, zone=ZoneInfo("UTC"), pipe=None)
    return SimpleNamespace(decider=decider, upstreams=promo), knowledge


async def test_a_version_that_is_left_behind_is_followed_by_the_next() -> None:
    promo = Promo(2, then=lambda: knowledge.swap(*release(2)))
    deps, knowledge = house(promo)
    knowledge.swap(*release(1))
    said = await ask(deps, SHOPPER, "/v1/evaluate", {"lines": []})
    assert said is not None
    assert (said.answer.status_code, said.membership_version, said.sure) == (200, 2, True)
    assert [asked["version"] for asked in promo.asked] == [1, 2]


async def test_one_that_no_replica_has_is_asked_for_twice_and_no_more() -> None:
    promo = Promo(7)
    deps, knowledge = house(promo)
    knowledge.swap(*release(1))
    assert await ask(deps, SHOPPER, "/v1/evaluate", {}) is None
    assert (len(promo.asked), knowledge.outdated.is_set()) == (2, True)


async def test_before_it_is_known_what_is_published_and_killed_nobody_is_asked() -> None:
    promo = Promo(1)
    deps, knowledge = house(promo)
    assert await ask(deps, SHOPPER, "/v1/evaluate", {}) is None
    knowledge.swap(*release(1))
    knowledge.kills_known = False
    assert await ask(deps, SHOPPER, "/v1/evaluate", {}) is None
    assert promo.asked == []


async def test_while_rules_may_have_ended_of_which_nothing_is_known_nobody_is_asked() -> None:
    promo = Promo(1)
    deps, knowledge = house(promo)
    knowledge.swap(*release(1), stale={2})
    assert await ask(deps, SHOPPER, "/v1/redemptions", {}) is None
    assert promo.asked == []
    knowledge.swap(*release(1), stale={0, 1})
    assert await ask(deps, SHOPPER, "/v1/redemptions", {}) is not None


async def test_what_rules_name_and_nobody_defines_is_neither_in_nor_out() -> None:
    promo = Promo(1)
    deps, knowledge = house(promo)
    definitions, content, promotions = release(1)
    knowledge.swap(definitions, content, {**promotions, "segments": ["new"]})
    assert await ask(deps, SHOPPER, "/v1/evaluate", {"segments": ["new"], "unknown": []}) is not None
    assert (promo.asked[0]["segments"], promo.asked[0]["unknown"]) == ([], ["new"])


async def test_of_what_holds_because_a_page_says_so_a_price_knows_nothing() -> None:
    promo = Promo(1)
    deps, knowledge = house(promo)
    definitions, content, promotions = release(1)
    said = {"id": 1, "key": "said", "websites": [], "atom": None, "epoch": 0, "since": 0}
    for field, known in (("utm_source", False), ("locale", False), ("region", True)):
        residual = {"not": {"context": field, "op": "eq", "value": "x"}}
        segments = {**definitions, "segments": [{**said, "residual": residual}]}
        knowledge.swap(segments, content, {**promotions, "segments": ["said"]})
        assert await ask(deps, SHOPPER, "/v1/evaluate", {}) is not None
        asked = promo.asked[-1]
        assert (asked["segments"], asked["unknown"]) == ((["said"], []) if known else ([], ["said"]))


async def test_a_cart_that_promo_svc_has_no_time_for_has_plain_prices_and_says_so() -> None:
    class Busy(Promo):
        async def send(self, *_: Any, **__: Any) -> httpx.Response:
            return httpx.Response(503, json={"type": "urn:footfall:problem:busy"})

    deps, knowledge = house(Busy(1))
    deps.clock = SimpleNamespace(now_ms=lambda: 1)
    knowledge.swap(*release(1))
    body = {"lines": [{"id": "a", "price": 100, "quantity": 2}]}
    found = await cart.price_cart(deps, ApiKey("k", "", "secret"), body, identity=None, facts={}, page={})
    assert (found["degraded"], found["discount"], found["grand_total"]) == (["promotions"], 0, 200)


@pytest.mark.parametrize("what", ["reserve", "confirm", "release"])
async def test_redemptions_of_a_website_wait_for_each_other_and_not_for_those_of_another(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    asked, go = list[str](), asyncio.Event()

    async def hang(_: Any, *more: Any, actor: Any = None, **__: Any) -> httpx.Response:
        asked.append(next(iter(actor.websites)) if actor else more[0].website)
        await go.wait()
        return httpx.Response(200)

    async def body(*_: Any) -> Any:
        return {}

    for name, stub in (("forward", hang), ("redeem", hang), ("_object_of", body)):
        monkeypatch.setattr(shop, name, stub)
    for name in ("identity", "request_of"):
        monkeypatch.setattr(shop, name, lambda *_: None)
    deps: Any = SimpleNamespace(
        redeeming=Turns(2, waiting=9, patience_s=60), reader=SimpleNamespace(facts=lambda _: {})
    )
    request: Any = SimpleNamespace(scope={})

    async def send(website: str) -> Any:
        key = ApiKey("k", "", "secret", website)
        if what == "reserve":
            return await shop.post_redemption(request, deps, key, "once")
        return await getattr(shop, f"post_{what}")(request, UUID(int=1), deps, key)

    sent = [asyncio.create_task(send(website)) for website in ("de", "de", "de", "de", "at")]
    await asyncio.sleep(0.05)
    assert asked == ["de", "de", "at"]
    go.set()
    assert len(await asyncio.gather(*sent)) == 5
    assert len(asked) == 5
