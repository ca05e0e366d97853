"""promo-svc on real PostgreSQL and Valkey: rules, carts, coupons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.servers
RULE = {
    "key": "ten",
    "name": "Ten off",
    "status": "live",
    "all_groups": True,
    "action": {"type": "percent", "value": 10},
}
CART = {"website": "main", "at_ms": 1_000, "lines": [{"id": "1", "sku": "A", "price": 5000, "quantity": 2}]}


async def evaluate(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/evaluate", json={**CART, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestCart:
    async def test_a_segment_restricted_rule_applies_to_its_segment_only(self, client: httpx.AsyncClient) -> None:
        made = await client.post("/v1/cart-rules", json={**RULE, "segments": {"any_of": ["vip"]}})
        assert made.status_code == 201, made.text
        assert (await evaluate(client))["discount"] == 0
        found = await evaluate(client, segments=["vip"])
        assert found["discount"] == 1000
        assert found["trace"] == [{"rule": "ten", "version": 1, "applied": True, "reason": None}]

    async def test_a_rule_without_group_is_for_nobody(self, client: httpx.AsyncClient) -> None:
        await client.post("/v1/cart-rules", json={**RULE, "all_groups": False})
        assert (await evaluate(client))["trace"][0]["reason"] == "other-group"

    async def test_a_near_miss_says_what_is_missing(self, client: httpx.AsyncClient) -> None:
        condition = {"cart": "subtotal", "op": "gte", "value": 12_000}
        body = {**RULE, "currency": "EUR", "condition": condition, "action": {"type": "free_shipping"}}
        await client.post("/v1/cart-rules", json=body)
        assert (await evaluate(client, shipping=500))["hints"][0]["missing"] == 2_000
        found = await evaluate(client, shipping=500, lines=[{"id": "1", "price": 12_000}])
        assert (found["shipping_discount"], found["grand_total"]) == (500, 12_000)

    async def test_disabling_is_instant_and_a_bad_rule_has_a_pointer(self, client: httpx.AsyncClient) -> None:
        await client.post("/v1/cart-rules", json=RULE)
        await client.post("/v1/cart-rules/ten/disable")
        assert (await evaluate(client))["discount"] == 0
        answer = await client.post("/v1/cart-rules", json={**RULE, "key": "bad", "condition": {"cart": "subtotl"}})
        assert answer.json()["errors"][0]["pointer"] == "/condition/cart"
        answer = await client.post("/v1/evaluate", json={**CART, "lines": [{"id": "1", "price": "free"}]})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/lines/0/price")


class TestCoupons:
    async def test_two_hundred_at_once_get_exactly_the_ten_there_are(
        self, client: httpx.AsyncClient, redeem: Callable[..., Awaitable[httpx.Response]]
    ) -> None:
        await client.post("/v1/cart-rules", json={**RULE, "coupon": "TEN", "uses_total": 10})
        answers = await asyncio.gather(*(redeem(f"k{n}", "ten", f"c{n}") for n in range(200)))
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(201), statuses.count(409)) == (10, 190)

    async def test_a_retry_is_the_same_redemption_and_a_release_gives_it_back(
        self, client: httpx.AsyncClient, redeem: Callable[..., Awaitable[httpx.Response]]
    ) -> None:
        await client.post("/v1/cart-rules", json={**RULE, "coupon": "ONE", "uses_total": 1})
        first = (await redeem("k", "ONE", "c1")).json()
        assert (await redeem("k", "ONE", "c1")).json() == first
        assert (await redeem("k", "ONE", "c2")).status_code == 422
        await client.post(f"/v1/redemptions/{first['id']}/release")
        assert (await redeem("k2", "ONE", "c1")).status_code == 201

    async def test_unknown_and_exhausted_look_alike(
        self, client: httpx.AsyncClient, redeem: Callable[..., Awaitable[httpx.Response]]
    ) -> None:
        await client.post("/v1/cart-rules", json={**RULE, "coupon": "ONE", "uses_total": 1})
        answers = [await redeem(f"{code}{i}", code) for i, code in enumerate(["ONE", "ONE", "NONE"])]
        assert [a.status_code for a in answers] == [201, 409, 409]
        assert answers[1].content == answers[2].content
