"""Odd rules through the real save, odd carts against whatever was accepted: nothing fails, no neighbour is disturbed.

`pytest --hypothesis-seed=N` gives the same examples again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
from conditions.kinds import AMOUNT, OPEN, Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from promo_svc.domain.vocabulary import CART_FIELDS, LINE_FIELDS, MEASURES

EXAMPLES, CARTS = 100, 10
LISTED = ("in", "not_in", "includes", "not_includes")
AT_MS = 1_800_000_000_000
NEIGHBOUR = {
    "key": "neighbour", "name": "n", "status": "live", "all_groups": True, "currency": "EUR",
    "action": {"type": "percent", "value": "12.5"}, "filter": {"line": "price", "op": "gte", "value": 100},
}  # fmt: skip
NASTY = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**29, 10**31, -0.0, 0.5, 1e-300, 1e300, float("nan"), float("inf"), "",
    " ", "0", "5e3", "1E-10000000", "1_000", "１", "NaN", "sku", "shoes", "shoes/", "/", "ſave10", "\x00", "\ud800", "((a+)+)+$",
    "[", "x" * 600, "2026-11-24", "0001-01-01T00:00:00+23:59", [], [[]], ["A", ["B"]], [None], {}, {"a": {"b": []}},
)  # fmt: skip
odd = (
    st.sampled_from(NASTY)
    | st.text(max_size=8)
    | st.integers()
    | st.floats()
    | st.lists(st.sampled_from(NASTY), max_size=3)
)


def paths(body: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a body."""
    steps = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    return [at, *(path for step, item in steps for path in paths(item, (*at, step)))] if at else [
        path for step, item in steps for path in paths(item, (*at, step))
    ]  # fmt: skip


@st.composite
def odd_here_and_there(draw: st.DrawFn, sound: st.SearchStrategy[Any], most: int) -> Any:
    """A sound body in which up to `most` places hold something odd; often none."""
    body = deepcopy(draw(sound))  # what a strategy hands out may be its own
    for _ in range(draw(st.integers(-1, most))):
        *way, last = draw(st.sampled_from(paths(body)))
        at = body
        for step in way:
            at = at[step]
        at[draw(st.sampled_from([last, "x"])) if isinstance(at, dict) else last] = draw(odd)
    return json.loads(json.dumps(body))


def some(known: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(sorted(known))


WORDS = st.sampled_from(["A", "B-1", "00770", "12E3", "red", "shoes", "shoes/running", "2026-11-24"])
NUMBERS = st.integers(-5, 10**7) | st.integers(0, 10**8).map(lambda n: n / 8)


@st.composite
def leaf(draw: st.DrawFn, key: str, known: dict[str, Kind]) -> dict[str, Any]:
    """A field with an operator and a value that suit it."""
    name = draw(some(known))
    kind = known[name]
    op = draw(some(kind.operators))
    value = NUMBERS if kind is AMOUNT else WORDS if kind is not OPEN else WORDS | NUMBERS
    if op in ("exists", "missing"):
        return {key: name, "op": op}
    if op in ("starts_with", "ends_with", "contains", "not_contains", "regex", "on_day", "not_on_day"):
        value = st.just("2026-11-24")
    return {key: name, "op": op, "value": draw(st.lists(value, min_size=1, max_size=4) if op in LISTED else value)}


def tree(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        several = st.lists(inner, min_size=1, max_size=3)
        groups = [st.fixed_dictionaries({name: several}, optional={"value": st.booleans()}) for name in ("all", "any")]
        return st.one_of(*groups, inner.map(lambda one: {"not": one}))

    return st.recursive(leaves, grown, max_leaves=6)


lines = tree(leaf("line", {**LINE_FIELDS, "attributes.color": OPEN, "attributes.n": OPEN}))
measured = st.tuples(leaf("measure", dict.fromkeys(MEASURES, AMOUNT)), lines | st.none())
products = measured.map(lambda two: {"products": two[0] if two[1] is None else {**two[0], "where": two[1]}})
conditions = tree(leaf("cart", dict.fromkeys(CART_FIELDS, AMOUNT)) | products)
counts = st.integers(0, 5)
percents = st.integers(0, 100) | st.decimals(0, 100, places=3).map(str)
actions = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("percent"), "value": percents}, optional={"max_quantity": counts, "step": counts}
    ),
    st.fixed_dictionaries({"type": st.just("fixed_unit"), "value": st.integers(0, 10**4)}, optional={"step": counts}),
    st.fixed_dictionaries(
        {"type": st.just("fixed_cart"), "value": st.integers(0, 10**5)}, optional={"max_quantity": counts}
    ),
    st.just({"type": "free_shipping"}),
)
keys = st.lists(st.sampled_from(["a", "b-1", "main"]), max_size=2)
rule = st.fixed_dictionaries(
    {
        "action": actions, "all_groups": st.just(True), "priority": st.integers(1, 99), "stop": st.booleans(),
        "currency": st.sampled_from(["EUR", "EUR", "JPY", None]),
    },
    optional={
        "condition": conditions, "filter": lines, "websites": st.just(["main"]), "groups": keys, "label": st.text(max_size=9),
        "segments": st.fixed_dictionaries({}, optional={"any_of": keys, "all_of": keys, "none_of": keys}),
        "starts_at": st.integers(AT_MS - 5, AT_MS), "ends_at": st.integers(AT_MS + 1, AT_MS + 5), "zone": st.just("UTC"),
        "coupon": st.sampled_from(["", "A", "b_1"]), "uses_total": counts,
    },
)  # fmt: skip
attributes = st.dictionaries(st.sampled_from(["color", "n", "é"]), odd | WORDS, max_size=3)
cart_line = st.fixed_dictionaries(
    {"id": st.uuids().map(str), "price": st.integers(0, 10**6), "quantity": st.integers(1, 50)},
    optional={
        "sku": WORDS, "categories": st.lists(WORDS, max_size=3), "discountable": st.booleans(),
        "attributes": attributes.filter(lambda found: "Infinity" not in (text := json.dumps(found)) and "NaN" not in text
                                        and "ud8" not in text and "x" * 600 not in text),
    },
)  # fmt: skip
cart = st.fixed_dictionaries(
    {"website": st.just("main"), "at_ms": st.integers(AT_MS - 6, AT_MS + 6), "lines": st.lists(cart_line, min_size=1)},
    optional={
        "shipping": st.integers(0, 2000), "segments": keys, "coupons": st.lists(WORDS | st.text(max_size=5), max_size=3),
        "group": st.just("a"), "currency": st.sampled_from(["EUR", "JPY"]),
    },
)  # fmt: skip


async def post(client: httpx.AsyncClient, path: str, body: Any) -> tuple[int, Any]:
    """What no JSON writer would send is sent, too."""
    headers = {"content-type": "application/json"}
    answer = await client.post(path, content=json.dumps(body).encode(), headers=headers)
    assert answer.status_code < 500, (path, body, answer.text)
    return answer.status_code, answer.json()


def check(cart: Any, found: dict[str, Any]) -> None:
    """Sums hold, nothing is below zero, nobody is broken, and the neighbour (first in order) gave what it gives alone."""
    assert all(t["reason"] != "broken" for t in found["trace"]), found["trace"]
    for line, sent in zip(found["lines"], cart["lines"], strict=True):
        given = found["currency"] == "EUR" and line["price"] >= 100 and sent.get("discountable", True)
        alone = (line["row_total"] + 4) // 8 if given else 0
        assert sum(p["amount"] for p in line["rules"] if p["rule"] == "neighbour") == alone
        assert line["row_total"] == line["price"] * line["quantity"] == line["final"] + line["discount"]
        assert line["discount"] == sum(part["amount"] for part in line["rules"])
        assert 0 <= line["final"] <= line["row_total"]
    assert found["items_discount"] == sum(line["discount"] for line in found["lines"])
    assert found["items_discount"] == sum(one["amount"] for one in found["applied"])
    assert 0 <= found["shipping_discount"] == sum(one["shipping"] for one in found["applied"]) <= found["shipping"]
    assert found["grand_total"] == found["subtotal"] + found["shipping"] - found["discount"]
    assert all(0 < hint["missing"] <= 9 * 10**15 for hint in found["hints"])


@pytest.fixture
def reached() -> Iterator[Counter[str]]:
    """How often the test came where it wants to be: all refused at the door would prove nothing."""
    counts: Counter[str] = Counter()
    yield counts
    assert counts["saved"] > EXAMPLES / 4
    assert counts["priced"] > EXAMPLES * CARTS / 4
    assert counts["applied"] > EXAMPLES / 4


@pytest.mark.servers
class TestFuzz:
    @pytest.mark.slow
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip
    @given(
        bodies=st.lists(odd_here_and_there(rule, 1), min_size=2, max_size=4),
        carts=st.lists(odd_here_and_there(cart, 1), min_size=CARTS, max_size=CARTS),
    )
    async def test_nothing_that_is_saved_or_bought_fails_or_disturbs_others(
        self, client: httpx.AsyncClient, reached: Counter[str], bodies: list[Any], carts: list[Any]
    ) -> None:
        await post(client, "/v1/cart-rules", NEIGHBOUR)
        saved = []
        for number, body in enumerate(bodies):
            status, made = await post(
                client, "/v1/cart-rules", {"name": "r", "status": "live", **body, "key": f"r{number}"}
            )
            assert status in (201, 400, 422), (status, made)
            assert "cannot be evaluated" not in json.dumps(made), body  # a probe met a fault of ours
            saved += [made] if status == 201 else []
        keys = {made["key"] for made in saved}
        for asked in carts:
            status, found = await post(client, "/v1/evaluate", asked)
            assert status in (200, 400, 422)
            if status == 200:
                check(asked, found)
                reached["priced"] += 1
                reached["applied"] += sum(t["applied"] and t["rule"] in keys for t in found["trace"])
        reached["saved"] += len(saved)
        await post(client, "/v1/messages", {"website": "main", "at_ms": AT_MS, "segments": ["a"]})
        for made in saved:
            seen = {"if-match": str(made["version"])}
            assert (await client.delete(f"/v1/cart-rules/{made['key']}", headers=seen)).status_code == 204
