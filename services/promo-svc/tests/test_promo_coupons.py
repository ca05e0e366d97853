"""What a coupon's limits count, and that nobody waits in a circle, gets the wrong answer or keeps a rule alive in a race."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest
from chassis.clock import ManualClock
from promo_svc.flows.redeem import HOLD_MS

pytestmark = pytest.mark.servers
RULE = {
    "key": "ten", "name": "Ten off", "status": "live", "all_groups": True, "coupon": "TEN",
    "action": {"type": "percent", "value": 10},
}  # fmt: skip
RULE_BODY = {name: value for name, value in RULE.items() if name != "key"}
Redeem = Callable[..., Awaitable[httpx.Response]]
Reserve = Callable[..., Awaitable[tuple[int, Any]]]


async def make(client: httpx.AsyncClient, **more: Any) -> None:
    answer = await client.post("/v1/cart-rules", json={**RULE, **more})
    assert answer.status_code == 201, answer.text


@pytest.fixture
def reserve(redeem: Redeem) -> Reserve:
    """Status, and the id of the redemption or the slug of the refusal."""

    async def ask(key: str, *named: str, **whose: Any) -> tuple[int, Any]:
        answer = await redeem(key, *named, **whose)
        found = answer.json()
        return answer.status_code, found["id"] if answer.status_code == 201 else found["type"].rpartition(":")[2]

    return ask


async def finish(client: httpx.AsyncClient, redemption: str, how: str) -> int:
    return (await client.post(f"/v1/redemptions/{redemption}/{how}")).status_code


async def waits(stored: asyncpg.Connection, asked: Awaitable[Any], most: int = 1) -> asyncio.Task[Any]:
    """Start something, and go on when so many wait for a lock."""
    task = asyncio.ensure_future(asked)
    async with asyncio.timeout(10):
        while await stored.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < most:
            assert not task.done(), task
            await asyncio.sleep(0.01)
    return task


REFUSED = (409, "coupon-not-available")


class TestHolds:
    async def test_a_hold_that_ran_out_gives_its_use_back_once(
        self, client: httpx.AsyncClient, clock: ManualClock, reserve: Reserve
    ) -> None:
        await make(client, uses_total=2)
        first, second = [(await reserve(key))[1] for key in "ab"]
        assert await finish(client, second, "confirm") == 200
        clock.advance(HOLD_MS - 1)
        assert await reserve("c") == REFUSED
        clock.advance(1)
        assert (await reserve("d"))[0] == 201
        assert await reserve("e") == REFUSED
        assert [await finish(client, first, how) for how in ("confirm", "release")] == [409, 409]
        clock.advance(HOLD_MS)
        assert (await reserve("f"))[0] == 201
        assert await reserve("g") == REFUSED

    async def test_a_customers_uses_are_those_held_and_confirmed(
        self, client: httpx.AsyncClient, clock: ManualClock, reserve: Reserve
    ) -> None:
        await make(client, uses_per_customer=1)
        first = (await reserve("a"))[1]
        assert await reserve("b") == REFUSED
        assert (await reserve("c", customer="other"))[0] == 201
        await finish(client, first, "release")
        assert (await reserve("d"))[0] == 201
        assert await reserve("e") == REFUSED
        clock.advance(HOLD_MS)
        status, last = await reserve("f")
        assert status == 201
        await finish(client, last, "confirm")
        clock.advance(HOLD_MS)
        assert await reserve("g") == REFUSED

    async def test_a_refused_wish_uses_nothing_and_leaves_its_key_free(
        self, client: httpx.AsyncClient, reserve: Reserve
    ) -> None:
        await make(client, uses_total=2, uses_per_customer=1)
        first = (await reserve("a"))[1]
        assert await reserve("b") == REFUSED
        assert (await reserve("c", customer="other"))[0] == 201
        await finish(client, first, "release")
        assert (await reserve("b"))[0] == 201

    async def test_a_rule_made_again_under_an_old_key_starts_with_all_its_uses(
        self, client: httpx.AsyncClient, reserve: Reserve
    ) -> None:
        await make(client, uses_total=1, uses_per_customer=1)
        old = (await reserve("a"))[1]
        await client.delete("/v1/cart-rules/ten", headers={"if-match": '"1"'})
        await make(client, uses_total=1, uses_per_customer=1)
        assert (await reserve("b"))[0] == 201
        assert await finish(client, old, "release") == 200
        assert await reserve("c", customer="other") == REFUSED


class TestKeys:
    async def test_a_code_in_other_letters_is_the_same_request(
        self, client: httpx.AsyncClient, reserve: Reserve
    ) -> None:
        await make(client)
        assert await reserve("k", "ten", "c") == await reserve("k", "TEN", "c")

    async def test_what_only_reads_alike_is_another_request(self, client: httpx.AsyncClient, reserve: Reserve) -> None:
        await make(client)
        assert (await reserve("k", "TEN", "B c"))[0] == 201
        assert await reserve("k", "TEN B", "c") == (422, "idempotency-key-reused")

    async def test_a_key_that_another_wish_takes_at_the_same_time_is_refused_and_costs_nothing(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection, reserve: Reserve
    ) -> None:
        await make(client, uses_total=2)
        await reserve("a")
        async with stored.transaction():
            await stored.execute(
                """INSERT INTO redemption SELECT gen_random_uuid(), website, 'k', 'another request', rule_id, rule, customer,
                   status, expires_at FROM redemption"""
            )
            other = await waits(stored, reserve("k"))
        assert await other == (422, "idempotency-key-reused")
        assert (await reserve("b"))[0] == 201

    async def test_one_wish_sent_twice_at_once_is_one_redemption(
        self, client: httpx.AsyncClient, reserve: Reserve
    ) -> None:
        await make(client, uses_total=2)
        assert len(set(await asyncio.gather(*(reserve("k") for _ in range(8))))) == 1
        assert (await reserve("b"))[0] == 201

    async def test_a_key_is_of_one_website(self, client: httpx.AsyncClient, reserve: Reserve) -> None:
        await make(client)
        first, other = [await reserve("k", website=website) for website in ("main", "outlet")]
        assert (first[0], other[0], len({first[1], other[1]})) == (201, 201, 2)
        assert await reserve("k", website="main") == first

    async def test_a_missing_key_is_named(self, client: httpx.AsyncClient) -> None:
        body = {"coupon": "TEN", "customer": "c", "website": "main", "at_ms": 0}
        answer = await client.post("/v1/redemptions", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"pointer": "", "detail": "header idempotency-key: Field required"}]

    async def test_a_key_whose_redemption_is_over_holds_nothing_and_says_so(
        self, client: httpx.AsyncClient, clock: ManualClock, reserve: Reserve
    ) -> None:
        await make(client, uses_total=2)
        released, confirmed = [(await reserve(key))[1] for key in "ab"]
        await finish(client, released, "release")
        await finish(client, confirmed, "confirm")
        over = (409, "redemption-over")
        assert [await reserve(key) for key in "ab"] == [over, (201, confirmed)]
        assert await reserve("a", customer="other") == (422, "idempotency-key-reused")
        assert (await reserve("c"))[0] == 201
        clock.advance(HOLD_MS)
        assert (await reserve("d"))[0] == 201
        assert await reserve("c") == over

    async def test_of_two_rules_with_a_code_that_of_the_website_is_given(
        self, client: httpx.AsyncClient, reserve: Reserve
    ) -> None:
        for website, value in (("main", 10), ("outlet", 50)):
            more = {"websites": [website], "uses_total": 1, "action": {"type": "percent", "value": value}}
            await make(client, key=website, **more)
        cart = {"at_ms": 1, "lines": [{"id": "1", "price": 1000}], "coupons": ["ten"]}
        for website, discount in (("main", 100), ("outlet", 500), ("other", 0)):
            found = (await client.post("/v1/evaluate", json={**cart, "website": website})).json()
            assert found["discount"] == discount
            assert [one["rule"] for one in found["applied"]] == ([website] if discount else [])
        statuses = [(await reserve(f"{n}", website=site))[0] for n in "12" for site in ("main", "outlet", "other")]
        assert statuses == [201, 201, 409, 409, 409, 409]


class TestRaces:
    @pytest.mark.parametrize("how", ["confirm", "release"])
    async def test_who_ends_a_hold_while_it_is_reclaimed_is_told_that_it_is_over(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection, clock: ManualClock, how: str, reserve: Reserve
    ) -> None:
        await make(client, uses_total=1)
        held = (await reserve("a"))[1]
        clock.advance(HOLD_MS)
        async with stored.transaction():
            await stored.execute("SELECT 1 FROM coupon_use FOR UPDATE")
            wish = await waits(stored, reserve("b"))
            end = await waits(stored, finish(client, held, how), most=2)
        assert (await wish)[0] == 201
        assert await end == 409
        assert await reserve("c") == REFUSED

    async def test_switching_a_rule_off_wins_over_whoever_saves_it(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection
    ) -> None:
        await make(client)
        body = {name: value for name, value in RULE.items() if name != "key"}
        async with stored.transaction():  # somebody saves version 2
            await stored.execute("UPDATE head SET version = version + 1")
            await stored.execute("UPDATE document SET version = 2")
            off = await waits(stored, client.post("/v1/cart-rules/ten/disable"))
            save = await waits(stored, client.put("/v1/cart-rules/ten", json=body, headers={"if-match": '"2"'}), most=2)
        assert ((await off).status_code, (await save).status_code) == (200, 412)
        assert (await client.get("/v1/cart-rules/ten")).json()["status"] == "disabled"


class TestMessages:
    async def test_an_ask_that_is_not_valid_spoils_no_other(self, client: httpx.AsyncClient) -> None:
        await make(client, coupon="", label="Ten!", segments={"any_of": ["vip"]})
        good = {"website": "main", "at_ms": 1, "segments": ["vip"]}
        odd = [{**good, "website": "w" * 201}, {**good, "group": "g" * 2001}, {**good, "odd": 1}, {}, None, "x"]
        asks = [good, *odd, {**good, "group": "g" * 2000}]
        answer = await client.post("/v1/messages-many", json={"asks": asks})
        answers = answer.json()["answers"]
        assert [a["messages"] for a in answers] == [
            [{"rule": "ten", "label": "Ten!"}],
            *([[]] * 6),
            answers[0]["messages"],
        ]
        pointers = [[fault["pointer"] for fault in a.get("refused", [])] for a in answers]
        assert pointers == [[], ["/website"], ["/group"], ["/odd"], ["/website", "/at_ms"], [""], [""], []]
        assert all(a.keys() >= {"version", "tags", "next_change_at"} for a in answers)

    async def test_a_group_as_long_as_events_allow_has_a_cart(self, client: httpx.AsyncClient) -> None:
        asked = {"website": "main", "at_ms": 1, "lines": [{"id": "1", "price": 1}]}
        found = [
            (await client.post("/v1/evaluate", json={**asked, "group": "g" * n})).status_code for n in (2000, 2001)
        ]
        assert found == [200, 422]


class TestWhose:
    """R11: a coupon is refused to whom a cart would not give it, like one that nobody knows."""

    @pytest.mark.parametrize(
        ("rule", "whose"),
        [
            ({"segments": {"any_of": ["vip"]}}, {"segments": ["vip"]}),
            ({"segments": {"all_of": ["vip", "new"]}}, {"segments": ["new", "vip"]}),
            ({"segments": {"none_of": ["staff"]}}, {}),
            ({"all_groups": False, "groups": ["wholesale"]}, {"group": "wholesale"}),
            ({"websites": ["outlet"]}, {"website": "outlet"}),
        ],
    )
    async def test_who_is_not_in_its_audience_is_refused_like_who_invents_a_code(
        self, client: httpx.AsyncClient, redeem: Redeem, rule: dict[str, Any], whose: dict[str, Any]
    ) -> None:
        await make(client, **rule)
        others: list[dict[str, Any]] = [
            {**whose, "segments": ["staff"], "group": "guest", "website": "main"},
            {**whose, "unknown": ["vip", "new", "staff"], "segments": [], "group": "", "website": "main"},
            {**whose, "killed": ["ten"]},
            {**whose, "coupon": "NONE"},
        ]
        answers = [await redeem(f"k{number}", **other) for number, other in enumerate(others)]
        assert {(answer.status_code, answer.content) for answer in answers} == {(409, answers[-1].content)}
        assert (await redeem("k", **whose)).status_code == 201

    async def test_a_coupon_is_reserved_by_the_version_that_is_named(
        self, client: httpx.AsyncClient, redeem: Redeem
    ) -> None:
        await make(client, segments={"any_of": ["vip"]})
        version = (await client.get("/v1/head")).json()["version"]
        await client.put("/v1/cart-rules/ten", json={**RULE_BODY, "coupon": "TEN"}, headers={"if-match": '"1"'})
        assert (await redeem("a", version=version)).status_code == 409
        assert (await redeem("b", version=version + 1)).status_code == 201
        assert (await redeem("c", version=version + 2)).status_code == 412


class TestVersions:
    """R14: what a cart costs by a version of the rules does not change when they do."""

    async def test_a_cart_by_a_version_that_is_over_costs_what_it_did(self, client: httpx.AsyncClient) -> None:
        await make(client, coupon="", action={"type": "percent", "value": "12.5"})
        cart = {"website": "main", "at_ms": 1, "lines": [{"id": "1", "price": 3333, "quantity": 3}]}
        before = (await client.post("/v1/evaluate", json=cart)).json()
        assert before["discount"] == 1250
        body = {**RULE_BODY, "coupon": "", "action": {"type": "percent", "value": 50}}
        await client.put("/v1/cart-rules/ten", json=body, headers={"if-match": '"1"'})
        now = (await client.post("/v1/evaluate", json=cart)).json()
        assert (now["discount"], now["version"]) == (5000, before["version"] + 1)
        await client.post("/v1/cart-rules/ten/disable")
        pinned = await client.post("/v1/evaluate", json={**cart, "version": before["version"]})
        assert pinned.json() == before
        ahead = await client.post("/v1/evaluate", json={**cart, "version": before["version"] + 3})
        assert (ahead.status_code, ahead.json()["type"]) == (412, "urn:footfall:problem:other-version")
