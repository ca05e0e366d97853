"""R11: a coupon is reserved for whom a cart would be given it, and refused to anybody else like one that nobody knows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from devstack.testing import until

from tests.e2e.conftest import Demo

pytestmark = [pytest.mark.servers, pytest.mark.slow]
RULES = {
    "VERA": {"all_groups": True, "segments": {"any_of": ["vip"]}},
    "NOT-VERA": {"all_groups": True, "segments": {"none_of": ["vip"]}},
    "WALTER": {"groups": ["Wholesale"]},
    "BAVARIA": {"all_groups": True, "segments": {"any_of": ["bavaria"]}},
    "ONCE": {"all_groups": True, "uses_total": 1},
}
VERA, WALTER = "demo-vip", "demo-wholesale"
_keys = itertools.count()


class Till:
    """The shop's server, around an order."""

    def __init__(self, demo: Demo, client: httpx.Client) -> None:
        self._client, self._secrets = client, demo.stack.secrets

    def wish(self, coupon: str, customer: str = "somebody", **headers: str) -> tuple[int, bytes]:
        """Status, and what a guesser could learn from."""
        body = {"coupon": coupon, "customer": customer}
        key = {"x-api-key": self._secrets.secret, "idempotency-key": f"till-{next(_keys)}"}
        answer = self._client.post("/v1/redemptions", json=body, headers={**key, **headers})
        return answer.status_code, answer.content

    def cart(self, coupon: str, kind: str) -> Any:
        """What one with a coupon comes to, for who has such a key."""
        body = {"lines": [{"id": "1", "price": 1000}], "coupons": [coupon]}
        key = {"x-api-key": getattr(self._secrets, kind)}
        return self._client.post("/v1/cart", json=body, headers=key).json()

    def admin(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """As a merchant."""
        headers = {"x-api-key": self._secrets.admin}
        return self._client.request(method, f"/admin/v1{path}", json=body, headers=headers)

    def shopper(self) -> str:
        """The cookie of a new one."""
        answer = self._client.get("/v1/context", headers={"x-api-key": self._secrets.publishable})
        return next(c for c in answer.headers.get_list("set-cookie") if c.startswith("__Host-ff_vid")).split(";")[0]


@pytest.fixture(scope="module")
def till(demo: Demo) -> Iterator[Till]:
    with httpx.Client(base_url=demo.stack.url, timeout=30) as client:
        made = Till(demo, client)
        for code, scope in RULES.items():
            common = {"key": code.lower(), "name": code, "status": "live", "coupon": code}
            rule = {**common, **scope, "action": {"type": "percent", "value": 10}}
            assert made.admin("POST", "/cart-rules", rule).status_code == 201
        until(lambda: made.wish("NOT-VERA")[0] == 201)
        yield made
        for code in RULES:
            assert made.admin("POST", f"/cart-rules/{code.lower()}/disable").status_code == 200


def test_each_is_refused_what_is_for_others_like_a_code_that_nobody_knows(till: Till) -> None:
    unknown = till.wish("NOBODYS")
    assert unknown[0] == 409
    for_whom = {"VERA": {VERA}, "NOT-VERA": {WALTER, "somebody"}, "WALTER": {WALTER}, "BAVARIA": set()}
    for code, customers in for_whom.items():
        for customer in (VERA, WALTER, "somebody"):
            found = till.wish(code, customer)
            assert (found[0] == 201) is (customer in customers), (code, customer, found)
            assert found[0] == 201 or found == unknown


def test_what_the_server_passes_on_of_a_shopper_counts_as_in_a_cart(till: Till) -> None:
    there = {"x-fact-region": "BY"}
    assert till.wish("BAVARIA", **there)[0] == 201
    assert till.wish("VERA", VERA, cookie=till.shopper())[0] == 409
    assert till.wish("NOT-VERA", VERA, cookie=till.shopper())[0] == 201


def test_a_cart_is_given_nothing_for_one_that_is_used_up_and_a_browser_learns_nothing(till: Till) -> None:
    assert till.cart("ONCE", "secret")["discount"] == 100
    assert till.wish("ONCE")[0] == 201
    until(lambda: till.cart("ONCE", "secret")["discount"] == 0)
    assert [t["reason"] for t in till.cart("ONCE", "secret")["trace"] if t["rule"] == "once"] == ["used-up"]
    assert till.cart("ONCE", "publishable") == till.cart("NOBODYS", "publishable")


def test_one_that_is_killed_is_nobodys(till: Till) -> None:
    assert till.wish("WALTER", WALTER)[0] == 201
    assert till.admin("POST", "/kills", {"kind": "rule", "key": "walter"}).status_code == 200
    assert till.wish("WALTER", WALTER) == till.wish("NOBODYS")
    assert till.admin("DELETE", "/kills/rule/walter").status_code == 204


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"coupon": "TEN"}, "/customer"),
        ({"customer": "ann"}, "/coupon"),
        ({"coupon": "TEN", "customer": "ann", "segments": ["vip"]}, "/segments"),
        ({"coupon": "TEN", "customer": ""}, "/customer"),
        ({"coupon": "TEN", "customer": "a" * 201}, "/customer"),
    ],
)
def test_a_wish_that_is_not_valid_is_pointed_at(demo: Demo, body: dict[str, Any], pointer: str) -> None:
    headers = {"x-api-key": demo.stack.secrets.secret, "idempotency-key": "odd"}
    answer = httpx.post(f"{demo.stack.url}/v1/redemptions", json=body, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
