"""What the edge gave to people it was not for, once: each a way that it must not be again. Real Varnish, one gateway."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from devstack.stack import Secrets
from devstack.testing import until

from tests.e2e.shop import Services, Shop, behind_edge, header

pytestmark = [pytest.mark.servers, pytest.mark.slow]
SECOND, BLOCK = "pk-second-website", 2000
MANY = [f"s{n}" for n in range(25)]  # one more than an edge compares


@pytest.fixture(scope="module")
def shop(services: Services, state: Path) -> Iterator[Shop]:
    home = state / "trust"
    home.mkdir()
    digest = hashlib.sha256(SECOND.encode()).hexdigest()
    second = {"id": "second", "sha256": digest, "kind": "publishable", "website": "second"}
    keys = json.dumps([*json.loads(Secrets.of(home).keys()), second])
    with behind_edge(services, home, KEYS=keys, BLOCK_PER_MINUTE=str(BLOCK)) as shop:
        shop.slot("top")
        until(lambda: shop.hits("slots=top"))
        yield shop


def test_who_is_where_he_is_gets_no_strangers_copy_however_much_a_page_depends_on(shop: Shop) -> None:
    shop.slot("wine")
    shop.segment("in-by", {"context": "country", "op": "eq", "value": "BY"})
    shop.block("wine-ad", "wine", none_of=["in-by"])
    for key in MANY:
        shop.segment(key)
        shop.block(f"for-{key}", "wine", priority=9, any_of=[key])
    front = {"x-front-key": shop.stack.secrets.front, "x-fact-country": "BY"}
    until(lambda: shop.sees("wine") == "wine-ad")
    assert shop.sees("wine", **front) == "wine:default"


def test_a_context_of_before_knows_all_that_a_publish_may_ask_for(shop: Shop) -> None:
    shop.slot("news")
    shop.segment("gold")
    member = header(shop.person("gold"))
    assert shop.sees("news") == "news:default"  # warm
    shop.block("for-gold", "news", any_of=["gold"])
    shop.block("not-gold", "news", priority=2, none_of=["gold"])
    until(lambda: shop.sees("news") == "not-gold", seconds=5)
    for _ in range(5):
        assert shop.sees("news", **member) == "for-gold"
        time.sleep(0.3)


def test_a_context_of_before_a_segment_is_no_word_about_it(shop: Shop) -> None:
    shop.slot("late")
    member = header(shop.person("gold"))  # of before `both` is there
    mobile = {"context": "device", "op": "eq", "value": "mobile"}
    shop.segment("both", {"any": [{"attribute": "gold", "op": "eq", "value": "yes"}, mobile]})
    shop.block("for-both", "late", any_of=["both"])
    shop.block("not-both", "late", priority=2, none_of=["both"])
    until(lambda: shop.sees("late") == "not-both", seconds=5)
    assert shop.sees("late", **member) == "for-both"


def test_a_segment_that_gets_a_website_is_noticed_there(shop: Shop) -> None:
    other = {"x-api-key": SECOND}
    shop.slot("sides")
    shop.segment("fan", websites=["main"])
    shop.block("fans-only", "sides", any_of=["fan"])
    shop.block("strangers-only", "sides", priority=2, none_of=["fan"])
    fan = shop.person("fan")
    until(lambda: shop.sees("sides") == "strangers-only")
    assert shop.sees("sides", **other) == "sides:default", "there nobody is known to be in it or out of it"
    found = shop.admin.get("/segments/fan")
    body = {"name": "fan", "status": "active", "condition": {"attribute": "fan", "op": "eq", "value": "yes"}}
    saved = shop.admin.put("/segments/fan", json=body, headers={"if-match": found.headers["etag"]})
    assert saved.status_code == 200
    shop.serves("fan")
    time.sleep(2)
    fan = shop.context(fan, **other)
    assert shop.sees("sides", **other, **header(fan)) == "fans-only"
    assert shop.sees("sides", **other) == "strangers-only"


def test_a_context_of_one_website_is_no_word_about_another(shop: Shop) -> None:
    other = {"x-api-key": SECOND}
    shop.slot("there")
    shop.segment("guest", websites=["second"])
    shop.block("for-guests", "there", any_of=["guest"])
    shop.block("for-the-rest", "there", priority=2, none_of=["guest"])
    guest = shop.person("guest")  # with the key of `main`, where the segment is not
    until(lambda: shop.sees("there", **other) == "for-the-rest")
    for _ in range(3):
        assert shop.sees("there", **other, **header(guest)) == "for-guests"
    theirs = shop.context(guest, **other)
    until(lambda: shop.hits("slots=there", **other, **header(theirs)))
    assert shop.shown("there", **other, **header(theirs)) == "for-guests"


def test_what_is_too_long_is_refused_as_such_and_a_hundred_headers_are_not(shop: Shop) -> None:
    for query in ("slots=" + "a" * 6000, "slots=top" + "&" * 7000):
        answer = shop.ask(query)
        assert (answer.status_code, answer.json()["type"]) == (414, "urn:footfall:problem:query-too-long")
    many = {f"x-more-{n}": "1" for n in range(80)}
    for cookies in ({}, shop.context({})):
        assert shop.shown("top", **many, **header(cookies)) == "top:default"
    until(lambda: shop.hits("slots=top"))  # what the gateway would refuse is no matter to a copy
    assert shop.hits("slots=top", **{f"x-more-{n}": "1" for n in range(142)}, **header(shop.context({})))


def test_two_keys_in_one_request_are_none_and_hinder_nobody(shop: Shop) -> None:
    sent = [("x-api-key", shop.stack.secrets.publishable), ("x-api-key", SECOND)]
    assert httpx.get(f"{shop.edge.url}/v1/decisions?slots=top", headers=sent).status_code == 401
    assert shop.sees("top") == "top:default"


def test_one_who_asks_for_very_much_silences_nobody_behind_the_same_edge(shop: Shop) -> None:
    """Last: the neighbourhood of this machine is silent afterwards."""
    front = {"x-front-key": shop.stack.secrets.front}
    with httpx.Client(headers={**shop.key, **front, "x-fact-address": "198.51.100.7"}) as abuser:
        url = f"{shop.edge.url}/v1/decisions?slots=x"
        found = set[int]()
        for n in range(2 * BLOCK + 200):  # wherever among them a minute ends
            found.add(abuser.get(f"{url}{n}").status_code)
            if 429 in found:
                break
    assert found == {200, 429}
    shop.slot("new")
    assert shop.sees("new", **front, **{"x-fact-address": "203.0.113.9"}) == "new:default"
    # Nor does his 429 stand in for a copy that there was.
    purge = {"x-purge-key": shop.stack.secrets.purge, "xkey-softpurge": "main:slot:new"}
    httpx.request("PURGE", shop.edge.url, headers=purge).raise_for_status()
    assert shop.sees("new", **front, **{"x-fact-address": "198.51.100.7"}) == "new:default"
    assert shop.sees("new", **front, **{"x-fact-address": "203.0.113.9"}) == "new:default"
