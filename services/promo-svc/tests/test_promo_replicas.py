"""What replicas do to each other: their clocks differ, and one that stands still has a row locked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest
from chassis.db import NOW_MS, Patience
from promo_svc import till
from promo_svc.app import SCHEMA
from promo_svc.flows.redeem import HOLD_MS, LOCK
from promo_svc.till import CONNECTIONS, OF_A_RULE, OF_A_WEBSITE, Till

pytestmark = pytest.mark.servers
BODY = {"name": "n", "status": "live", "all_groups": True, "action": {"type": "percent", "value": 10}}
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
Redeem = Callable[..., Awaitable[httpx.Response]]


async def make(client: httpx.AsyncClient, *codes: str, **more: Any) -> None:
    for code in codes:
        answer = await client.post("/v1/cart-rules", json={**BODY, "key": code.lower(), "coupon": code, **more})
        assert answer.status_code == 201, answer.text


async def wish(client: httpx.AsyncClient, code: str, key: str) -> httpx.Response:
    body = {"coupon": code, "customer": key, "website": "main", "at_ms": 1}
    return await client.post("/v1/redemptions", json=body, headers={"idempotency-key": key})


async def many(redeem: Redeem, *codes: str, **whose: Any) -> list[asyncio.Task[httpx.Response]]:
    """A crowd that wants each of the codes."""
    return [asyncio.create_task(redeem(f"{code}{n}", code, f"c{n}", **whose)) for code in codes for n in range(10)]


async def until_waiting(stored: asyncpg.Connection, count: int) -> None:
    async with asyncio.timeout(30):
        while await stored.fetchval(WAITING) < count:
            await asyncio.sleep(0.02)


class TestClocks:
    @pytest.fixture
    async def off(
        self, replica: Any, patience: None, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[tuple[httpx.AsyncClient, Callable[[int], None]]]:
        """A replica, and what sets its clock wrong by so many milliseconds."""
        real, off_ms = time.time_ns, [0]
        monkeypatch.setattr(time, "time_ns", lambda: real() + off_ms[0] * 1_000_000)
        async with replica() as client:
            yield client, lambda ms: off_ms.__setitem__(0, ms)

    async def test_a_replica_ahead_gives_no_use_again_that_is_held(self, off: Any) -> None:
        client, off_by = off
        await make(client, "ONCE", uses_total=1)
        held = await wish(client, "ONCE", "ann")
        off_by(HOLD_MS + 60_000)
        assert (await wish(client, "ONCE", "cyd")).status_code == 409
        off_by(0)
        assert (await client.post(f"/v1/redemptions/{held.json()['id']}/confirm")).status_code == 200

    async def test_a_replica_behind_holds_no_use_for_longer(self, off: Any, stored: asyncpg.Connection) -> None:
        client, off_by = off
        await make(client, "ONCE", uses_total=1)
        before = await stored.fetchval(NOW_MS)
        off_by(-HOLD_MS)
        held = (await wish(client, "ONCE", "ann")).json()["expires_at"]
        assert before + HOLD_MS <= held <= await stored.fetchval(NOW_MS) + HOLD_MS
        await stored.execute(f"UPDATE redemption SET expires_at = ({NOW_MS})")
        assert (await wish(client, "ONCE", "cyd")).status_code == 201

    async def test_what_is_saved_is_dated_by_the_database(self, off: Any, stored: asyncpg.Connection) -> None:
        client, off_by = off
        off_by(86_400_000)
        before = await stored.fetchval(NOW_MS)
        await make(client, "ONCE")
        (version,) = (await client.get("/v1/cart-rules/once/versions")).json()["versions"]
        assert before <= version["saved_at"] <= await stored.fetchval(NOW_MS)


class TestOneThatStandsStill:
    async def test_who_waits_for_a_locked_coupon_keeps_nobody_from_anything_else(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection, redeem: Redeem
    ) -> None:
        await make(client, "HOT", "OTHER")
        held = (await redeem("held", "HOT")).json()["id"]
        async with stored.transaction():
            await stored.execute("SELECT 1 FROM coupon_use FOR UPDATE")
            crowd = await many(redeem, "HOT")
            ends = [asyncio.create_task(client.post(f"/v1/redemptions/{held}/confirm")) for _ in range(15)]
            await until_waiting(stored, OF_A_RULE)
            assert (await redeem("o", "OTHER")).status_code == 201
            assert (await redeem("u", "NONE")).status_code == 409
            assert (await client.get("/v1/head")).status_code == 200
            assert (await client.post("/v1/cart-rules/other/disable")).status_code == 200
            await make(client, "NEW")
            assert await stored.fetchval(WAITING) == OF_A_RULE
            assert not any(task.done() for task in (*crowd, *ends))
        assert {task.status_code for task in await asyncio.gather(*crowd)} == {201}
        assert {task.status_code for task in await asyncio.gather(*ends)} == {200}

    async def test_many_locked_coupons_of_a_website_leave_the_others_theirs(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection, redeem: Redeem
    ) -> None:
        codes = [f"HOT{n}" for n in range(6)]
        await make(client, *codes)
        for code in codes:
            await redeem(code, code)
        async with stored.transaction():
            await stored.execute("SELECT 1 FROM coupon_use FOR UPDATE")
            crowd = await many(redeem, *codes)
            await until_waiting(stored, OF_A_WEBSITE)
            await make(client, "OTHER")
            crowd += await many(redeem, "OTHER")
            assert (await redeem("o", "OTHER", website="outlet")).status_code == 201
            assert await stored.fetchval(WAITING) == OF_A_WEBSITE
            assert not any(task.done() for task in crowd)
        assert {task.status_code for task in await asyncio.gather(*crowd)} == {201}

    async def test_however_many_shoppers_wait_merchants_and_gateways_do_not(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection, redeem: Redeem
    ) -> None:
        codes = [f"HOT{n}" for n in range(10)]
        await make(client, *codes)
        for code in codes:
            await redeem(code, code)
        async with stored.transaction():
            await stored.execute("SELECT 1 FROM coupon_use FOR UPDATE")
            crowd = [task for n, code in enumerate(codes) for task in await many(redeem, code, website=f"w{n % 5}")]
            await until_waiting(stored, CONNECTIONS)
            assert (await client.get("/v1/head")).status_code == 200
            assert (await client.post("/v1/cart-rules/hot0/disable")).status_code == 200
            await make(client, "NEW")
        assert {task.status_code for task in await asyncio.gather(*crowd)} == {201}

    @pytest.mark.parametrize("end", ["reserve", "confirm", "release"])
    async def test_who_cannot_have_it_soon_is_told_to_come_again_and_may(
        self, replica: Any, stored: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, end: str
    ) -> None:
        monkeypatch.setattr(till, "TURN_S", 0.2)
        monkeypatch.setattr(till, "PATIENCE", Patience(30.0, 0.2, 60.0))
        async with replica() as client:
            await make(client, "HOT", uses_total=2)
            held = (await wish(client, "HOT", "held")).json()["id"]

            async def ask() -> httpx.Response:
                if end == "reserve":
                    return await wish(client, "HOT", "k")
                return await client.post(f"/v1/redemptions/{held}/{end}")

            async with stored.transaction():
                await stored.execute("SELECT 1 FROM coupon_use FOR UPDATE")
                refused = await asyncio.gather(*(ask() for _ in range(8)))
            assert {(r.status_code, r.json()["type"]) for r in refused} == {(503, "urn:footfall:problem:busy")}
            assert {r.headers["retry-after"] for r in refused} == {"2"}
            assert (await ask()).is_success

    async def test_a_row_is_free_again_soon_after_who_has_it_locked_stands_still(
        self,
        client: httpx.AsyncClient,
        database: str,
        stored: asyncpg.Connection,
        redeem: Redeem,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await make(client, "HOT")
        await redeem("first", "HOT")
        rule = await stored.fetchval("SELECT rule_id FROM coupon_use")
        monkeypatch.setattr(till, "PATIENCE", Patience(silence_s=0.5))
        stood = asyncio.Event()

        async def stand_still() -> None:
            async with Till.open(database, schema=SCHEMA) as other, other.tx(rule, "main") as tx:
                await tx.execute(LOCK, rule)
                stood.set()
                await asyncio.Event().wait()

        still = asyncio.create_task(stand_still())
        await stood.wait()
        assert (await redeem("k", "HOT")).status_code == 201
        still.cancel()
        await asyncio.wait([still])
