"""A cache that can key by nothing but the URL, in front of real services: Varnish without a word of ours in it but its secret."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from devstack.testing import until

from tests.e2e.plain import SECRET, behind
from tests.e2e.shop import Services, Shop, header, opened

pytestmark = [pytest.mark.servers, pytest.mark.slow]


class Visitor:
    """As a page asks: with what it was told last for a URL, as long as that is good."""

    def __init__(self, shop: Shop, cookies: dict[str, str]) -> None:
        self.shop, self.cookies, self.told = shop, cookies, dict[str, tuple[str, int]]()

    def sees(self, slot: str) -> tuple[str, bool]:
        """What is shown, and whether it was a copy."""
        text, until_s = self.told.get(slot, ("", 0)) if self.cookies else ("base.main", 1 << 60)
        asked = text if time.time() < until_s else ""
        answer = ask(self.shop, slot, asked, self.cookies)
        if "x-aud" in answer.headers:
            self.told[slot] = answer.headers["x-aud"], int(answer.headers["x-aud-until"])
            assert answer.headers["cache-control"] == "private, no-store"
        return answer.json()["slots"][slot]["blocks"][0]["key"], answer.headers["x-hits"] != "0"


def ask(shop: Shop, slot: str, aud: str, cookies: dict[str, str] | None = None) -> httpx.Response:
    answer = shop.ask(f"slots={slot}&aud={aud}", **header(cookies or {}))
    assert answer.status_code == 200, answer.text
    return answer


@pytest.fixture(scope="module")
def shop(services: Services, state: Path) -> Iterator[Shop]:
    home = state / "aud"
    more = {"CACHE_KEYS": f"cdn:{SECRET}", "PERSON_PER_MINUTE": "100000"}
    with opened(services, home, lambda cache, stack: behind(cache, stack, home), edge=False, **more) as shop:
        shop.slot("top")
        shop.segment("gold")
        shop.segment("staff")
        shop.block("for-gold", "top", 1, any_of=["gold"], none_of=["staff"])
        shop.block("for-others", "top", 2, none_of=["gold", "staff"])
        until(lambda: ask(shop, "top", "base.main").headers["x-hits"] != "0")
        yield shop


def test_each_sees_what_is_theirs_and_those_who_are_alike_share_a_copy(shop: Shop) -> None:
    kinds = {"gold": "for-gold", "staff": "top:default", "": "for-others"}
    people = [(Visitor(shop, shop.person(kind)), kind) for kind in kinds for _ in range(3)]
    people += [(Visitor(shop, {}), "") for _ in range(3)]
    chance, copies = random.Random(3), 0
    for _ in range(150):
        visitor, kind = chance.choice(people)
        found, copy = visitor.sees("top")
        assert found == kinds[kind]
        copies += copy
    assert copies > 100
    assert len({visitor.told["top"][0] for visitor, _ in people if visitor.cookies}) == 3


def test_what_nobody_signed_and_what_is_anothers_counts_for_nothing(shop: Shop) -> None:
    gold, staff = (Visitor(shop, shop.person(kind)) for kind in ("gold", "staff"))
    gold.sees("top")
    text = gold.told["top"][0]
    assert shown(ask(shop, "top", text)) == "for-gold", "it is good for whoever has it"
    for odd in (text[:-2] + "AA", text.replace(".", "..", 1), "base.other", "x", text + "&aud=base.main"):
        for cookies, key in ((None, "for-others"), (staff.cookies, "top:default")):
            answer = ask(shop, "top", odd, cookies)
            assert (shown(answer), answer.headers["cache-control"]) == (key, "private, no-store"), odd
            assert ("x-aud" in answer.headers) == (cookies is not None)
    direct = httpx.get(f"{shop.stack.url}/v1/decisions?slots=top&aud={text}", headers=shop.key)
    assert direct.headers["cache-control"] == "private, no-store", "nobody said that he keys by it"


def shown(answer: httpx.Response) -> Any:
    return answer.json()["slots"]["top"]["blocks"][0]["key"]


def test_a_publish_that_changes_what_a_page_depends_on_makes_every_old_one_worthless(shop: Shop) -> None:
    shop.slot("news")
    shop.segment("silver")
    silver = Visitor(shop, shop.person("silver"))
    shop.block("for-gold-too", "news", 1, any_of=["gold"])
    until(lambda: "gold" in str(shop.admin.get("/blocks/for-gold-too").json()))
    time.sleep(1)
    assert silver.sees("news")[0] == "news:default"
    shop.block("for-silver", "news", 2, any_of=["silver"])
    time.sleep(1)
    assert silver.sees("news")[0] == "for-silver", "who was as a stranger a moment ago is none now"
    before = shop.person("gold")
    gold = Visitor(shop, before)
    gold.sees("news")
    old = gold.told["news"][0]
    shop.block("not-silver", "news", 3, none_of=["silver"])
    shop.segment("bronze")
    shop.block("for-bronze", "news", 4, any_of=["bronze"])
    until(lambda: "x-aud" in ask(shop, "news", old, before).headers, seconds=5)
    assert gold.sees("news")[0] == "for-gold-too"


def test_a_kill_says_that_it_does_not_reach_it(shop: Shop) -> None:
    said = shop.admin.post("/kills", json={"kind": "block", "key": "for-gold"}).json()
    assert (said["done"], said["missing"]["caches"]) == (False, [shop.edge.url])
