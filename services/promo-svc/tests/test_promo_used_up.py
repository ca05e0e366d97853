"""A coupon of which no use is left gives nothing in a cart, at any replica, by any version, and looks like one nobody knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from chassis.clock import ManualClock
from chassis.db import Tx
from promo_svc.flows.redeem import HOLD_MS
from promo_svc.uses import UsedUp

pytestmark = pytest.mark.servers
BODY = {
    "name": "n", "status": "live", "all_groups": True, "coupon": "ONE", "uses_total": 1,
    "action": {"type": "percent", "value": 10},
}  # fmt: skip
CART = {"website": "main", "at_ms": 1, "lines": [{"id": "1", "price": 1000}]}
Shop = list[httpx.AsyncClient]


@pytest.fixture
async def shop(replica: Any, clock: ManualClock, patience: None) -> AsyncIterator[Shop]:
    """Two replicas that follow what is stored, and one live rule with a coupon that may be used once."""

    async def now(_: Tx) -> int:
        return clock.now_ms()

    async with AsyncExitStack() as ending:
        made = [await ending.enter_async_context(replica(now=now, follows=True)) for _ in range(2)]
        assert (await made[0].post("/v1/cart-rules", json={"key": "one", **BODY})).status_code == 201
        await everywhere(made, None)
        yield made


async def cart(client: httpx.AsyncClient, code: str = "one", **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/evaluate", json={**CART, "coupons": [code], **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def everywhere(shop: Shop, reason: str | None, **more: Any) -> None:
    """Wait until every replica says this of the rule."""
    async with asyncio.timeout(30):
        while [t["reason"] for each in shop for t in (await cart(each, **more))["trace"]] != [reason] * len(shop):
            await asyncio.sleep(0.02)


async def wish(client: httpx.AsyncClient, key: str) -> httpx.Response:
    body = {"coupon": "ONE", "customer": key, "website": "main", "at_ms": 1}
    return await client.post("/v1/redemptions", json=body, headers={"idempotency-key": key})


async def test_the_last_use_ends_it_everywhere_and_one_given_back_begins_it_again(shop: Shop) -> None:
    first, other = shop
    held = (await wish(first, "a")).json()["id"]
    await everywhere(shop, "used-up")
    found, unknown = await cart(other), await cart(other, "NONE")
    del found["trace"], unknown["trace"]
    assert found == unknown
    assert found["discount"] == 0
    await other.post(f"/v1/redemptions/{held}/release")
    await everywhere(shop, None)
    assert (await cart(first))["discount"] == 100


async def test_a_hold_that_ran_out_is_a_use_to_be_had_though_nobody_reclaimed_it(
    shop: Shop, clock: ManualClock
) -> None:
    await wish(shop[0], "a")
    await everywhere(shop, "used-up")
    clock.advance(HOLD_MS)
    await everywhere(shop, None)
    held = (await wish(shop[0], "b")).json()["id"]
    await shop[0].post(f"/v1/redemptions/{held}/confirm")
    await everywhere(shop, "used-up")
    clock.advance(HOLD_MS)
    await asyncio.sleep(0.6)
    await everywhere(shop, "used-up")


async def test_it_is_used_up_by_whatever_version_a_cart_is(shop: Shop) -> None:
    before = (await cart(shop[0]))["version"]
    await wish(shop[0], "a")
    await shop[0].put("/v1/cart-rules/one", json={**BODY, "uses_total": 2}, headers={"if-match": '"1"'})
    await everywhere(shop, None)
    await wish(shop[0], "b")
    await everywhere(shop, "used-up", version=before)
    await shop[0].delete("/v1/cart-rules/one", headers={"if-match": '"2"'})
    async with asyncio.timeout(30):
        while [(await cart(each))["trace"] for each in shop] != [[], []]:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.6)
    await everywhere(shop, "used-up", version=before)


async def test_what_nobody_has_said_lately_gives_nothing_and_everything_again_when_it_is_said(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = UsedUp.look

    async def silent(_: UsedUp) -> None:
        raise TimeoutError

    monkeypatch.setattr(UsedUp, "look", silent)
    await everywhere(shop, "used-up")
    monkeypatch.setattr(UsedUp, "look", look)
    await everywhere(shop, None)
