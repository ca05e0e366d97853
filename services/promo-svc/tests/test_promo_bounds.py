"""Numbers, codes and lists are bounded, at the door of a cart and of a save; every refusal points at what is wrong."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from chassis.auth import Actor, ServiceTokens

pytestmark = pytest.mark.servers
RULE = {"key": "r", "name": "r", "all_groups": True, "action": {"type": "percent", "value": 10}}
PAID = {**RULE, "status": "live", "currency": "EUR"}
LINE = {"id": "1", "price": 100}
CART = {"website": "main", "at_ms": 1_800_000_000_000, "lines": [LINE]}
DEEP: Any = "x"
for _ in range(8):
    DEEP = [DEEP]


def changed(body: Any, pointer: str, value: Any) -> Any:
    """A copy of the body with the value at the pointer."""
    copy = json.loads(json.dumps(body))
    *way, last = pointer.strip("/").split("/")
    at = copy
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    at[last] = value
    return copy


async def send(client: httpx.AsyncClient, path: str, body: Any) -> tuple[int, list[str]]:
    """Status and pointers."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await client.post(path, content=content, headers={"content-type": "application/json"})
    return answer.status_code, [e["pointer"] for e in answer.json().get("errors", [])]


LINES_20 = [{"id": str(i), "price": 10**18} for i in range(20)]
LINES_MANY = [{"id": str(i), "price": 1} for i in range(501)]
LISTED = [{"id": str(i), "price": 1, "categories": ["a"] * 20, "attributes": {"x": [[1] * 9] * 8}} for i in range(50)]
FULL = [[1] * 49] * 9 + [[1, None] * 24]  # one more than these is more than a condition looks at
MORE = {"id": "more", "price": 1, "attributes": {"x": [1]}}
CARTS = [
    ("/lines/0/quantity", 0, None), ("/lines/0/quantity", -1, None), ("/lines/0/quantity", 2**63, None),
    ("/lines/0/quantity", "2", None), ("/lines/0/quantity", 1.0, None), ("/lines/0/quantity", True, None),
    ("/lines/0/price", -1, None), ("/lines/0/price", 10**12 + 1, None), ("/lines/0/price", "1", None),
    ("/lines/0/price", 41.5, None), ("/lines/0/id", "", None), ("/lines/0/id", 7, None),
    ("/lines", LINES_20, "/lines/0/price"), ("/lines", LINES_MANY, "/lines"), ("/lines", {}, "/lines"),
    ("/lines", [{**LINE, "quantity": 10**6, "price": 10**12}], "/lines/0"),
    ("/lines", [LINE, {"id": "2", "quantity": 9000, "price": 10**12}], "/lines/1"),
    ("/lines", [LINE, LINE], "/lines/1/id"), ("/lines", [LINE, {"id": "2"}], "/lines/1/price"),
    ("/lines/0/prise", 1, None), ("/lines/0/a~b|c", 1, "/lines/0/a~0b|c"),
    ("/lines/0/categories", ["a", 1], "/lines/0/categories/1"), ("/lines/0/sku", 123, None),
    ("/lines/0/attributes", [], None), ("/lines/0/attributes/x", "é" * 1001, None),
    ("/lines/0/attributes/x", DEEP, "/lines/0/attributes/x/0/0/0/0"), ("/lines/0/attributes/x", list(range(51)), None),
    ("/lines/0/attributes", {str(i): 1 for i in range(51)}, None),
    ("/lines", [*LISTED, MORE], "/lines/50"), ("/lines/0/attributes/x", [*FULL, 1, 2], None),
    ("/shipping", -1, None), ("/shipping", "5", None), ("/shipping", 10**12 + 1, None), ("/at_ms", 2**63, None),
    ("/currency", "eur", None), ("/currency", "EURO", None), ("/currency", "EUR\n", None), ("/currency", 978, None),
    *[("/currency", code, None) for code in ("", "XXQ", "XXX", "XTS", "XAU")],
    ("/coupons", ["A", 5], "/coupons/1"), ("/segments", ["vip", None], "/segments/1"), ("/version", 0, None),
    ("/website", None, None), ("/nobody", 1, None),
]  # fmt: skip


class TestCart:
    async def test_what_no_cart_has_is_refused_where_it_is(self, client: httpx.AsyncClient) -> None:
        for pointer, value, at in CARTS:
            found = await send(client, "/v1/evaluate", changed(CART, pointer, value))
            assert found == (422, [at or pointer]), (pointer, value)

    async def test_a_cart_has_as_many_values_in_lists_as_rules_can_look_at(self, client: httpx.AsyncClient) -> None:
        plain = {**MORE, "categories": [], "attributes": {"x": 1, "y": {"z": "text"}}}
        assert await send(client, "/v1/evaluate", {**CART, "lines": [*LISTED, plain]}) == (200, [])
        listed = {"line": "attributes.x", "op": "includes", "value": 2}
        made = {**RULE, "status": "live", "condition": {"products": {"where": listed}}}
        await client.post("/v1/cart-rules", json=made)
        found = await client.post("/v1/evaluate", json=changed(CART, "/lines/0/attributes/x", [*FULL, 2]))
        assert found.json()["discount"] > 0

    async def test_whatever_is_typed_as_a_coupon_is_an_unknown_one_at_most(self, client: httpx.AsyncClient) -> None:
        for typed in ("x" * 201, "é" * 2000, " ", ""):
            assert await send(client, "/v1/evaluate", {**CART, "coupons": [typed]}) == (200, [])
        assert await send(client, "/v1/evaluate", {**CART, "coupons": ["x" * 2001]}) == (422, ["/coupons/0"])

    async def test_what_is_not_json_is_refused(self, client: httpx.AsyncClient) -> None:
        for body in (
            b"",
            b"{",
            b'{"lines": [{"attributes": {"a": ' + b"[" * 100_000,
            b"\xff\xfe",
            b'{"website": NaN}',
            b'{"website": "\\ud800"}',
        ):
            assert (await send(client, "/v1/evaluate", body))[0] == 400, body[:20]

    async def test_what_is_wrong_in_a_map_is_pointed_at_as_the_map(self, client: httpx.AsyncClient) -> None:
        for raw in ('{"a": 1, "b": 1e999}', f'{{"{"k" * 201}": 1}}'):
            body = json.dumps(changed(CART, "/lines/0/attributes", "?")).replace('"?"', raw).encode()
            assert await send(client, "/v1/evaluate", body) == (422, ["/lines/0/attributes"])

    async def test_a_hint_is_whole_and_one_that_a_cart_can_follow(self, client: httpx.AsyncClient) -> None:
        free = {"type": "free_shipping"}
        for op, value in (("gte", 150.5), ("gt", 150.5), ("gte", 10**29), ("gt", 9 * 10**15)):
            key = f"r-{op}-{len(str(value))}"
            condition = {"cart": "subtotal", "op": op, "value": value}
            made = await client.post(
                "/v1/cart-rules", json={**PAID, "key": key, "condition": condition, "action": free}
            )
            assert made.status_code == 201
        found = (await client.post("/v1/evaluate", json=CART)).json()
        assert {hint["rule"]: hint["missing"] for hint in found["hints"]} == {"r-gte-5": 51, "r-gt-5": 51}
        both = {"all": [amount(150), {"cart": "quantity", "op": "gte", "value": 2}]}
        await client.post("/v1/cart-rules", json={**PAID, "key": "both", "condition": both})
        found = (await client.post("/v1/evaluate", json=CART)).json()
        assert "both" not in {hint["rule"] for hint in found["hints"]}  # more money alone would not do
        more = changed(CART, "/lines/0/price", 151)
        trace = (await client.post("/v1/evaluate", json=more)).json()["trace"]
        met = [t["rule"] for t in trace if t["reason"] == "nothing-left"]  # there is no shipment to give
        assert met == ["r-gte-5", "r-gt-5"]

    async def test_the_largest_cart_is_summed_exactly(self, client: httpx.AsyncClient) -> None:
        await client.post("/v1/cart-rules", json={**RULE, "status": "live"})
        lines = [{"id": str(i), "price": 10**12 - i, "quantity": 17} for i in range(500)]
        answer = await client.post("/v1/evaluate", json={**CART, "lines": lines, "shipping": 10**12})
        found = answer.json()
        subtotal = sum((10**12 - i) * 17 for i in range(500))
        discount = sum(((10**12 - i) * 17 + 5) // 10 for i in range(500))
        assert (found["subtotal"], found["discount"]) == (subtotal, discount)
        assert found["grand_total"] == subtotal - discount + 10**12


def amount(value: Any) -> dict[str, Any]:
    return {"cart": "subtotal", "op": "gte", "value": value}


def sku(value: Any, op: str = "in") -> dict[str, Any]:
    return {"line": "sku", "op": op, "value": value}


def products(**body: Any) -> dict[str, Any]:
    return {"products": body}


RULES: list[tuple[str, Any, str | None]] = [
    *[("/action/value", v, None) for v in ("5e3", "1E-10000000", "1e400", "NaN", "Infinity", "1_000", "１０", " 5", "", True,
                                           None, "-1", 101, "100.0000001", "0." + "3" * 40, [], 33.333333333333336)],
    ("/action", {"type": "fixed_unit", "value": "0.5"}, "/action/value"),
    ("/action", {"type": "fixed_cart", "value": 10**12 + 1}, "/action/value"),
    ("/action", {"type": "free_shipping", "value": 5}, "/action/value"),
    ("/action", {"type": "free_shipping", "max_quantity": 5}, "/action/max_quantity"),
    ("/action", {"type": "fixed_cart", "value": 5, "step": 2}, "/action/step"),
    ("/action/type", "percentage", None), ("/action/amount", 5, None),
    *[(f"/action/{name}", v, None) for name in ("max_quantity", "step") for v in (-1, 2**31, "1", 1.5, True)],
    *[(f"/{name}", v, None) for name in ("uses_total", "uses_per_customer", "priority") for v in (-1, 2**31, "1", False)],
    *[("/starts_at", v, None) for v in (0, -1, 10**15, 2**70, "2026-11-24", 1.8e12 + 0.5)],
    ("/zone", "Europe/Atlantis", None), ("/zone", "", None), ("/zone", "../etc/passwd", None), ("/stop", "yes", None),
    *[("/coupon", v, None) for v in ("   ", "ſave10", "STRAßE", "A B", "A" * 65, "A\n", "A\u0000", 5)],
    ("/name", "", None), ("/name", "n" * 121, None), ("/label", "n" * 201, None), ("/groups", [""], "/groups/0"),
    ("/groups", ["g"] * 201, "/groups"), ("/groups", ["g" * 101], "/groups/0"), ("/groups", [["g"]], "/groups/0"),
    ("/websites", ["a", "Main!"], "/websites/1"), ("/segments/any_of", ["vip", "V I P"], "/segments/any_of/1"),
    ("/segments/none_of", [["vip"]], "/segments/none_of/0"), ("/segments/some_of", [], None), ("/key", "R 1", None),
    *[("/condition", amount(v), "/condition/value") for v in ("5e3", "100", True, None, [5], 10**30, 1e30)],
    ("/condition", {"cart": "subtotl"}, "/condition/cart"), ("/condition", {"cart": ["subtotal"]}, "/condition/cart"),
    ("/condition", {"cart": "subtotal", "op": "contains", "value": 1}, "/condition/op"),
    ("/condition", {"all": [amount(1), {"cart": "quantity", "op": "gte", "valeu": 1, "value": 1}]}, "/condition/all/1/valeu"),
    ("/condition", {}, "/condition"), ("/condition", [], "/condition"), ("/condition", {"line": "sku"}, "/condition"),
    ("/condition", products(measure="foun"), "/condition/products/measure"),
    ("/condition", products(measure=["found"]), "/condition/products/measure"),
    ("/condition", products(wheer={}), "/condition/products/wheer"),
    ("/condition", products(where={}), "/condition/products/where"),
    ("/condition", products(where=None), "/condition/products/where"),
    ("/condition", products(value="3"), "/condition/products/value"),
    ("/condition", products(op="contains", value=3), "/condition/products/op"),
    ("/condition", products(where={"any": [sku(["A"]), {"line": "skuu"}]}), "/condition/products/where/any/1/line"),
    ("/condition", products(where={"cart": "subtotal"}), "/condition/products/where"),
    ("/condition", {"products": {}, "x": 1}, "/condition/x"), ("/condition", {"products": []}, "/condition/products"),
    ("/filter", sku([["A"]]), "/filter/value/0"), ("/filter", sku(["A", 1067]), "/filter/value/1"),
    ("/filter", sku([]), "/filter/value"), ("/filter", sku("A"), "/filter/value"), ("/filter", sku([None]), "/filter/value/0"),
    ("/filter", sku(["A"] * 1001), "/filter/value"), ("/filter", sku(1067, "eq"), "/filter/value"),
    ("/filter", sku(["A"], "eq"), "/filter/value"), ("/filter", sku(5, "starts_with"), "/filter/value"),
    *[("/filter", {"line": "category", "op": op, "value": "shoes"}, "/filter/op")
      for op in ("contains", "regex", "lt", "ends_with", "not_contains", "on_day")],
    ("/filter", {"line": "category", "op": "in", "value": ["shoes", 5]}, "/filter/value/1"),
    *[("/filter", {"line": name, "op": op, "value": "5"}, "/filter/op")
      for name in ("price", "quantity", "row_total") for op in ("contains", "regex", "starts_with", "includes")],
    *[("/filter", {"line": name, "op": "gte", "value": "100"}, "/filter/value") for name in ("price", "quantity", "row_total")],
    ("/filter", {"line": "attributes.", "value": 1}, "/filter/line"), ("/filter", {"line": "attributes"}, "/filter/line"),
    ("/filter", {"line": "attributes.x", "value": {"a": 1}}, "/filter/value"),
    ("/filter", {"line": "attributes.x", "op": "in", "value": [{"a": 1}]}, "/filter/value/0"),
    ("/filter", {"line": "attributes.x", "value": 10**30}, "/filter/value"),
    *[("/currency", v, None) for v in ("", "eur", "EURO", "EUR\n", "XXQ", "XXX", "XTS", "XAU", 978, ["EUR"])],
    *[("/action", {"type": kind, "value": 5}, "/currency") for kind in ("fixed_unit", "fixed_cart")],
    *[("/condition", {"cart": name, "op": "gte", "value": 1}, "/currency")
      for name in ("subtotal", "initial_subtotal", "shipping")],
    *[("/filter", {"any": [sku(["A"]), {"line": name, "op": "gte", "value": 1}]}, "/currency")
      for name in ("price", "row_total")],
    ("/condition", products(measure="amount", value=5), "/currency"),
    ("/condition", {"not": products(where={"line": "price", "op": "gte", "value": 5})}, "/currency"),
    ("/filter", {"all": [sku(["A"])] * 51}, "/condition"),
    ("/condition", {"all": [products(where={"any": [sku(["A"])] * 25})] * 2}, "/condition"),
]  # fmt: skip


class TestRule:
    async def test_what_no_rule_can_mean_is_refused_where_it_is(self, client: httpx.AsyncClient) -> None:
        for pointer, value, at in RULES:
            status, pointers = await send(client, "/v1/cart-rules", changed(RULE, pointer, value))
            assert (status, set(pointers)) == (422, {at or pointer}), (pointer, value)
        assert (await client.get("/v1/cart-rules")).json() == {"rules": [], "next": None}

    async def test_a_misspelt_word_is_told_the_right_one(self, client: httpx.AsyncClient) -> None:
        for condition, word in (
            ({"cart": "subtotl"}, "subtotal"),
            ({"crat": "subtotal"}, "cart"),
            (products(wheer={}), "where"),
            (products(measure="fond"), "found"),
            (products(where={"line": "categroy"}), "category"),
            ({"cart": "subtotal", "op": "gtee", "value": 1}, "gte"),
            ({"cart": "subtotal", "valeu": 1, "value": 1}, "value"),
        ):
            answer = await client.post("/v1/cart-rules", json={**RULE, "condition": condition})
            assert f"did you mean {word}?" in answer.json()["errors"][0]["detail"], answer.text

    async def test_what_cannot_be_stored_is_refused(self, client: httpx.AsyncClient) -> None:
        for pointer in ("/condition/value", "/condition/cart", "/name", "/odd"):
            body = changed({**RULE, "condition": amount(1)}, pointer, "\0")
            assert (await send(client, "/v1/cart-rules", body))[0] == 422
            raw = json.dumps(changed({**RULE, "condition": amount(1)}, pointer, "?"))
            for odd in ("NaN", "1e999", '"\\ud800"', "[" * 5000):
                assert (await send(client, "/v1/cart-rules", raw.replace('"?"', odd).encode()))[0] == 400

    async def test_a_stored_number_is_written_as_it_was_read(self, client: httpx.AsyncClient) -> None:
        for number, value in enumerate(("0.0000001", "33.333333333333333333", "4.2", 4.2, 7)):
            body = changed({**RULE, "key": f"r{number}"}, "/action/value", value)
            made = (await client.post("/v1/cart-rules", json=body)).json()
            assert made["action"]["value"] == str(value)
            same = {k: v for k, v in made.items() if k not in ("key", "version")}
            answer = await client.put(f"/v1/cart-rules/r{number}", json=same, headers={"if-match": '"1"'})
            assert answer.status_code == 200


class TestCodes:
    async def test_what_only_looks_like_a_code_is_unknown(
        self, client: httpx.AsyncClient, redeem: Callable[..., Awaitable[httpx.Response]]
    ) -> None:
        for code in ("SAVE10", "STRASSE", ""):
            body = {**RULE, "key": f"r-{code.lower()}", "coupon": code, "status": "live", "all_groups": bool(code)}
            assert (await client.post("/v1/cart-rules", json=body)).status_code == 201
        for typed in ("ſave10", "SAVE１０", "SAVE10 ", " SAVE10", "SAVE10\n", "SAVE10\0", "STRAßE", "", "   "):
            found = (await client.post("/v1/evaluate", json={**CART, "coupons": [typed]})).json()
            assert found["discount"] == 0, typed
            wished = await redeem("k", typed)
            assert wished.status_code == (422 if "\0" in typed else 409), typed

    async def test_one_code_belongs_to_one_live_rule(self, client: httpx.AsyncClient) -> None:
        def body(code: str, status: str) -> dict[str, Any]:
            return {**{k: v for k, v in RULE.items() if k != "key"}, "coupon": code, "status": status}

        async def save(key: str, code: str, status: str) -> int:
            return (await client.post("/v1/cart-rules", json={"key": key, **body(code, status)})).status_code

        async def change(key: str, code: str, status: str) -> tuple[int, str]:
            answer = await client.put(f"/v1/cart-rules/{key}", json=body(code, status), headers={"if-match": '"1"'})
            return answer.status_code, answer.json().get("errors", [{"pointer": ""}])[0]["pointer"]

        assert await save("one", "Ten", "live") == 201
        assert await save("two", "tEN", "live") == 422
        assert await save("two", "tEN", "draft") == 201
        assert await change("two", "tEN", "live") == (422, "/coupon")
        assert (await change("one", "TEN", "live"))[0] == 200
        await client.post("/v1/cart-rules/one/disable")
        assert (await change("two", "ten", "live"))[0] == 200

    async def test_a_code_may_be_had_on_every_website_and_nobody_learns_who_else_has_it(
        self, client: httpx.AsyncClient
    ) -> None:
        async def save(key: str, *websites: str) -> tuple[int, str]:
            body = {**RULE, "key": key, "coupon": "TEN", "status": "live", "websites": websites}
            token = ServiceTokens("s" * 32, "test").issue("promo-svc", Actor("mia", "marketer", websites))
            sent = {"authorization": f"Bearer {token}"}
            answer = await client.post("/v1/cart-rules", json=body, headers=sent, auth=lambda request: request)
            return answer.status_code, answer.json().get("errors", [{"detail": ""}])[0]["detail"]

        assert [await save(*made) for made in (("a", "a"), ("bc", "b", "c"))] == [(201, "")] * 2
        assert await save("own", "a") == (422, "the live rule a has this code")
        assert (await save("both", "c", "d"))[0] == (await save("all"))[0] == 422
        assert await save("d", "d") == (201, "")
        await client.post("/v1/cart-rules", json={**RULE, "key": "everywhere", "coupon": "ALL", "status": "live"})
        assert (await save("d2", "d"))[0] == 422
