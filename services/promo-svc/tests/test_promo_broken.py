"""No rule takes others down: one that cannot be read or raises is left out alone and named; a save tries it first."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from conditions import operators
from promo_svc import snapshot
from promo_svc.domain import evaluate as evaluator
from promo_svc.domain import probe
from promo_svc.domain.cart import DEAR_S, MOST_LINES, MOST_LISTED, Budget, Dear, Line, Request, Running
from promo_svc.domain.evaluate import RuleSet
from promo_svc.domain.probe import heavy, requests, weigh
from promo_svc.domain.rule import rule_of
from promo_svc.domain.vocabulary import CART_FIELDS
from promo_svc.reading import read_cart
from promo_svc.snapshot import BROKEN
from structlog.testing import capture_logs

GOOD = {
    "key": "good",
    "name": "Good",
    "status": "live",
    "all_groups": True,
    "currency": "EUR",
    "action": {"type": "fixed_cart", "value": 700},
}
ODD = {**GOOD, "key": "odd", "condition": {"cart": "shipping", "op": "gte", "value": 0}, "priority": 0}
LINES = [{"id": "a", "price": 1999, "quantity": 3}, {"id": "b", "price": 50}]
CART = {"website": "main", "at_ms": 1_800_000_000_000, "lines": LINES, "shipping": 490}
ASK = {"website": "main", "at_ms": 1_800_000_000_000}
UNREADABLE: list[dict[str, Any]] = [
    {"status": "live"},
    {**GOOD, "action": {"type": "half_price"}},
    {**GOOD, "action": 5},
    {**GOOD, "action": {"type": "percent", "value": "ten"}},
    {**GOOD, "condition": {"moon": "full"}},
    {**GOOD, "filter": {"line": "colour", "value": 5}},
    {**GOOD, "segments": [1]},
    {**GOOD, "segments": {"any_of": "vip"}},
    {**GOOD, "websites": 5},
    {**GOOD, "priority": "first"},
    {**GOOD, "starts_at": "tomorrow"},
    {**GOOD, "coupon": 5},
    {**GOOD, "currency": None},
    {**GOOD, "currency": 978},
    {**ODD, "currency": None, "action": {"type": "percent", "value": 5}},
]


def boom(*_: Any) -> Any:
    raise ZeroDivisionError("a secret of ours")


async def evaluate(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.post("/v1/evaluate", json=CART)
    assert answer.status_code == 200, answer.text
    return answer.json()


def good(found: dict[str, Any]) -> dict[str, Any]:
    """What the good rule gave, and what came of it."""
    parts = {line["id"]: [p for p in line["rules"] if p["rule"] == "good"] for line in found["lines"]}
    return {"applied": found["applied"], "parts": parts, "total": found["grand_total"]}


def counted(rule: str) -> float:
    return BROKEN.labels(rule)._value.get()


@pytest.mark.servers
class TestUnreadable:
    async def test_a_stored_rule_nobody_can_read_is_left_out_alone_and_named(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection
    ) -> None:
        await client.post("/v1/cart-rules", json=GOOD)
        alone, before = good(await evaluate(client)), counted("old-3")
        for number, body in enumerate(UNREADABLE):
            await stored.execute(
                "INSERT INTO document (kind, key, version, body) VALUES ('cart-rule', $1, 7, $2)",
                f"old-{number}", json.dumps(body),
            )  # fmt: skip
        with capture_logs() as logs:
            assert (
                await client.post("/v1/cart-rules", json={**GOOD, "key": "new", "status": "draft"})
            ).status_code == 201
        found = await evaluate(client)
        assert good(found) == alone
        broken = [
            {"rule": f"old-{n}", "version": 7, "applied": False, "reason": "broken"} for n in range(len(UNREADABLE))
        ]
        assert [t for t in found["trace"] if t["rule"].startswith("old")] == sorted(
            broken, key=lambda t: str(t["rule"])
        )
        assert [e["rule"] for e in logs if e["event"] == "rule_broken"] == sorted(str(t["rule"]) for t in broken)
        assert counted("old-3") == before + 1

    async def test_it_can_be_listed_switched_off_and_deleted(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection
    ) -> None:
        await client.post("/v1/cart-rules", json=GOOD)
        for number, body in enumerate(UNREADABLE):
            await stored.execute("INSERT INTO document (kind, key, version, body) VALUES ('cart-rule', $1, 1, $2)",
                                 f"old-{number}", json.dumps(body))  # fmt: skip
        assert len((await client.get("/v1/cart-rules")).json()["rules"]) == len(UNREADABLE) + 1
        assert (await client.get("/v1/usage", params={"segment": "vip"})).status_code == 200
        for number in range(len(UNREADABLE)):
            assert (await client.post(f"/v1/cart-rules/old-{number}/disable")).status_code == 200
        assert [t["rule"] for t in (await evaluate(client))["trace"]] == ["good"]
        for path in ("/v1/targeting", "/v1/cart-rules/old-0/versions"):
            assert (await client.get(path)).status_code == 200
        assert (await client.delete("/v1/cart-rules/old-0", headers={"if-match": '"2"'})).status_code == 204


@pytest.mark.servers
class TestRaising:
    async def test_a_rule_that_raises_is_left_out_alone_and_named(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await client.post("/v1/cart-rules", json=GOOD)
        alone, before = good(await evaluate(client)), counted("odd")
        assert (await client.post("/v1/cart-rules", json=ODD)).status_code == 201
        monkeypatch.setitem(CART_FIELDS, "shipping", boom)
        with capture_logs() as logs:
            for _ in range(3):
                found = await evaluate(client)
                assert good(found) == alone
                assert [(t["rule"], t["reason"]) for t in found["trace"]] == [("good", None), ("odd", "broken")]
        assert counted("odd") == before + 3
        assert [e for e in logs if e["event"] == "rule_broken"] == [
            {"event": "rule_broken", "log_level": "error", "part": "promo", "rule": "odd", "version": 1,
             "error": "ZeroDivisionError"}
        ]  # fmt: skip

    async def test_a_rule_that_raises_half_way_leaves_nothing_behind(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await client.post("/v1/cart-rules", json={**GOOD, "priority": 9})
        alone = good(await evaluate(client))
        half = {**GOOD, "key": "half", "action": {"type": "percent", "value": 50}, "stop": True}
        assert (await client.post("/v1/cart-rules", json=half)).status_code == 201
        real, calls = Running.most, []

        def most(self: Running, index: int, amount: Any) -> int:
            calls.append(index)
            return boom() if len(calls) == 2 else real(self, index, amount)

        monkeypatch.setattr(Running, "most", most)
        found = await evaluate(client)
        assert [t["reason"] for t in found["trace"]] == ["broken", None]
        assert good(found) == alone

    async def test_the_messages_of_others_are_given(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for body in (GOOD, ODD):
            await client.post("/v1/cart-rules", json=body)
        real = evaluator.out_of_scope

        def out_of_scope(rule: Any, *args: Any) -> Any:
            return boom() if rule.key == "odd" else real(rule, *args)

        monkeypatch.setattr(evaluator, "out_of_scope", out_of_scope)
        for path, body in (("/v1/messages", ASK), ("/v1/messages-many", {"asks": [ASK]})):
            answer = (await client.post(path, json=body)).json()
            assert [m["rule"] for m in answer.get("answers", [answer])[0]["messages"]] == ["good"]


@pytest.mark.servers
class TestTriedFirst:
    async def test_a_rule_that_would_raise_is_not_saved_and_says_nothing_of_us(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await client.post("/v1/cart-rules", json=GOOD)
        monkeypatch.setitem(CART_FIELDS, "shipping", boom)
        with capture_logs() as logs:
            answer = await client.post("/v1/cart-rules", json=ODD)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:footfall:problem:rule-invalid")
        assert answer.json()["errors"] == [{"pointer": "", "detail": "the rule cannot be evaluated"}]
        assert [(e["rule"], e["error"]) for e in logs if e["event"] == "rule_refused_by_probe"] == [
            ("odd", "ZeroDivisionError")
        ]
        assert [r["key"] for r in (await client.get("/v1/cart-rules")).json()["rules"]] == ["good"]
        changed = {**{k: v for k, v in GOOD.items() if k != "key"}, "condition": ODD["condition"]}
        refused = await client.put("/v1/cart-rules/good", json=changed, headers={"if-match": '"1"'})
        assert refused.status_code == 422
        assert (await client.get("/v1/cart-rules/good")).json()["version"] == 1

    async def test_a_broken_neighbour_does_not_stop_a_save(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await client.post("/v1/cart-rules", json=ODD)
        monkeypatch.setitem(CART_FIELDS, "shipping", boom)
        assert (await client.post("/v1/cart-rules", json=GOOD)).status_code == 201
        assert (await client.post("/v1/cart-rules/odd/disable")).status_code == 200


class TestProbes:
    def test_every_made_up_cart_is_one_that_the_api_takes(self) -> None:
        body = {**GOOD, "groups": ["trade"], "segments": {"any_of": ["a"], "none_of": ["b"]}, "coupon": "TEN"}
        rule = rule_of(1, "r", 1, {**body, "starts_at": 1_800_000_000_000, "ends_at": 1_900_000_000_000})
        made = list(requests(rule))
        for asked in made:
            assert read_cart(msgspec.json.encode(asked)) == asked
        assert {asked.at_ms - 1_800_000_000_000 for asked in made} >= {-1, 0, 10**11 - 1, 10**11}
        assert {len(asked.lines) for asked in made} >= {0, 1}
        assert {(asked.group, asked.coupons) for asked in made} == {("trade", ("TEN",)), ("nobody", ())}
        assert {asked.segments for asked in made} == {frozenset("a"), frozenset("b")}


SKU = {"line": "sku", "op": "regex", "value": "x$"}
PATTERNS = {"all": [{"line": f"attributes.{name}", "op": "regex", "value": "(é|b)+c"} for name in "xy"]}


def held(value: Any, kind: type) -> int:
    return len(value) if isinstance(value, kind) else 0


class TestDear:
    @pytest.mark.parametrize("filtered", [None, PATTERNS, {"line": "category", "value": "shoes"}])
    def test_it_is_tried_on_carts_that_are_taken_and_as_large_as_any(self, filtered: Any) -> None:
        rule = rule_of(1, "odd", 1, {**ODD, "filter": filtered})
        for content in heavy([rule], MOST_LINES):
            body = msgspec.json.encode({**ASK, "lines": content})
            assert len(read_cart(body).lines) == MOST_LINES
            listed = [len(line.categories) for line in content]
            listed += [len(v) for line in content for v in line.attributes.values() if isinstance(v, list)]
            assert len(body) > 120_000 or sum(listed) >= 0.9 * MOST_LISTED

    def test_all_that_a_cart_can_hold_is_tried_where_most_conditions_look_and_never_the_same_twice(self) -> None:
        others = [{"line": f"attributes.n{i}", "op": "exists"} for i in range(30)]
        most = [{"line": "attributes.a", "op": "regex", "value": f"a[ab]{{9}}c{i}"} for i in range(3)]
        rule = rule_of(1, "odd", 1, {**ODD, "filter": {"any": [*others, *most]}})
        first, second = (list(heavy([rule], MOST_LINES, salt=salt)) for salt in range(2))
        texts, lists = (
            [[held(line.attributes.get("a"), kind) for line in made] for made in first] for kind in (str, list)
        )
        assert max(map(sum, texts)) > 150_000
        assert max(map(sum, lists)) >= 0.9 * MOST_LISTED
        assert len([1 for a, b in zip(first, second, strict=True) if a == b]) == 5, "those of one letter"

    def test_what_stands_behind_a_condition_that_does_not_hold_here_is_weighed_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[int] = []
        dear = {"any": [{"line": "attributes.a", "op": "on_day", "value": f"2026-01-{i:02}"} for i in range(1, 29)]}
        rule = rule_of(1, "odd", 1, {**ODD, "filter": {"all": [{"line": "attributes.brand", "value": "nike"}, dear]}})
        day = operators.day

        def counted(*asked: Any) -> Any:
            looks.append(1)
            return day(*asked)

        monkeypatch.setattr(operators, "day", counted)
        with pytest.raises(Dear):
            weigh(rule, lambda: len(looks) * DEAR_S / (28 * MOST_LINES))

    @pytest.mark.parametrize(
        ("rule", "lines"),
        [
            ({"filter": SKU}, MOST_LINES),
            ({"condition": {"products": {"where": SKU}}}, MOST_LINES),
            ({"condition": {"products": {}}, "filter": {"line": "sku", "op": "missing"}}, MOST_LINES),
            ({"filter": {"any": [{**SKU, "line": "attributes.a", "value": f"{n}$"} for n in range(48)]}}, 1),
        ],
    )
    def test_a_rule_that_has_had_its_time_for_a_cart_is_left_out_alone_and_named(self, rule: Any, lines: int) -> None:
        rules = RuleSet.compile(
            1, [rule_of(1, "dear", 1, {**ODD, **rule}), rule_of(2, "good", 1, {**GOOD, "priority": 1})]
        )
        content = tuple(Line(str(i), 100, 1, "s", attributes={"a": ["a" * 200] * 50}) for i in range(lines))
        calls, told = itertools.count(), list[tuple[str, type]]()
        # The clock is looked at for every line and every look of a pattern: this is in time for the lines alone.
        budget = Budget(lambda: next(calls) * DEAR_S / (1.2 * MOST_LINES))
        asked = Request("main", 1_800_000_000_000, content)
        found = evaluator.evaluate(rules, asked, lambda r, e: told.append((r.key, type(e))), budget)
        assert told == [("dear", Dear)]
        assert [(t["rule"], t["reason"]) for t in found["trace"]] == [("dear", "broken"), ("good", None)]
        assert found["discount"] == min(700, 100 * lines)

    def test_what_is_published_has_no_more_time_than_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rule = rule_of(1, "odd", 1, {**ODD, "filter": {"line": "price", "op": "gte", "value": 1}})
        published = snapshot.Published(1, RuleSet.compile(1, [rule]), [])
        asked = Request("main", 1_800_000_000_000, (Line("a", 100),))
        assert published.evaluate(asked)["trace"][0]["reason"] is None
        looks = itertools.count()
        monkeypatch.setattr(snapshot, "thread_time", lambda: 1.1 * DEAR_S * next(looks))
        assert published.evaluate(asked)["trace"][0]["reason"] == "broken"

    @pytest.mark.servers
    async def test_a_rule_that_takes_long_for_a_cart_is_not_saved_and_says_why(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert (await client.post("/v1/cart-rules", json=GOOD)).status_code == 201
        monkeypatch.setattr(probe, "DEAR_S", 0.0)
        answer = await client.post("/v1/cart-rules", json={**ODD, "filter": PATTERNS})
        assert answer.status_code == 422
        assert "ms for a large cart" in answer.json()["errors"][0]["detail"]
        assert [r["key"] for r in (await client.get("/v1/cart-rules")).json()["rules"]] == ["good"]

    @pytest.mark.servers
    async def test_nobody_waits_for_somebody_elses_large_cart(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        going, real = threading.Event(), snapshot.evaluate

        def slow(rules: Any, asked: Any, *more: Any) -> Any:
            assert len(asked.lines) < MOST_LINES or going.wait(30)
            return real(rules, asked, *more)

        monkeypatch.setattr(snapshot, "evaluate", slow)
        lines = [{"id": str(i), "price": 100, "sku": "s" * 30} for i in range(MOST_LINES)]
        large = asyncio.create_task(client.post("/v1/evaluate", json={**CART, "lines": lines}))
        try:
            await asyncio.sleep(0.1)
            assert (await evaluate(client))["subtotal"] == 6047
            assert not large.done()
        finally:
            going.set()
        assert (await large).json()["subtotal"] == 50_000
