"""Everything a rule can say is saved through the real route and run; nothing documented can be broken unseen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product, zip_longest
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from conditions.kinds import AMOUNT, CATEGORY, CODE, OPEN, Kind
from promo_svc.domain import probe, vocabulary
from promo_svc.domain.rule import ACTIONS
from promo_svc.domain.vocabulary import CART_FIELDS, LINE_FIELDS, MEASURES, MONEY
from promo_svc.schemas import Action

README = (Path(__file__).parents[1] / "README.md").read_text()
TOGETHER = 10
LISTED = ("in", "not_in", "includes", "not_includes")
SINGLE = {CODE: "SKU-1", CATEGORY: "shoes", AMOUNT: 3, OPEN: "2026-11-24"}
CART = {
    "website": "main", "at_ms": 1_800_000_000_000, "shipping": 500, "lines": [
        {"id": "1", "sku": "SKU-1", "price": 5000, "quantity": 2, "categories": ["shoes/running"]},
        {"id": "2", "price": 10, "attributes": {"material": ["wool", 1, None, {"a": []}]}},
    ],
}  # fmt: skip


def comparisons(key: str, name: str, kind: Kind) -> Iterator[dict[str, Any]]:
    for op in kind.operators:
        value = [SINGLE[kind]] if op in LISTED else SINGLE[kind]
        yield {key: name, "op": op} | ({} if op in ("exists", "missing") else {"value": value})


def line_leaves() -> Iterator[dict[str, Any]]:
    """Every field of a line with every operator."""
    for name, kind in [*LINE_FIELDS.items(), ("attributes.material", OPEN)]:
        yield from comparisons("line", name, kind)


def cart_leaves() -> Iterator[dict[str, Any]]:
    """Every field of a cart and every measure of products with every operator."""
    for name in CART_FIELDS:
        yield from comparisons("cart", name, AMOUNT)
    for name in MEASURES:
        yield from ({"products": body} for body in comparisons("measure", name, AMOUNT))


def actions() -> Iterator[dict[str, Any]]:
    """Every action with every modifier it has."""
    values = {"percent": ["0", "12.5", 100], "fixed_unit": [0, 250], "fixed_cart": ["700"], "free_shipping": [0]}
    for kind in ACTIONS:
        most = (0, 1, 7) if kind != "free_shipping" else (0,)
        steps = (0, 1, 2) if kind in ("percent", "fixed_unit") else (0,)
        for value, max_quantity, step in product(values[kind], most, steps):
            yield {"type": kind, "value": value, "max_quantity": max_quantity, "step": step}


def rules() -> Iterator[dict[str, Any]]:
    """All of them, several in one rule: of an `any` the first ones are always asked, and the last one holds."""
    on = {"cart": "line_items", "op": "gte", "value": 0}
    for number, (line, cart, action) in enumerate(zip_longest(line_leaves(), cart_leaves(), actions())):
        where = {"products": {"where": line}} if line else on
        condition = {"all": [{"any": [where, on]}, {"any": [cart or on, on]}]}
        body = {"key": f"r{number}", "name": "r", "status": "live", "all_groups": True, "priority": number}
        body |= {"currency": "EUR"}
        yield {**body, "condition": condition, "filter": line, "action": action or {"type": "percent", "value": "1"}}


@pytest.mark.servers
class TestSaved:
    async def test_every_field_operator_measure_action_and_modifier_is_saved_and_runs(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            probe, "DEAR_S", 1.0
        )  # how dear one may be is looked at elsewhere; a busy machine counts double
        websites = set()
        for number, body in enumerate(rules()):
            website = f"w{number // TOGETHER}"  # those of one are tried with each other
            websites.add(website)
            answer = await client.post("/v1/cart-rules", json={**body, "websites": [website]})
            assert answer.status_code == 201, (body, answer.text)
            assert {name: answer.json()[name] for name in ("condition", "filter")} | body == body
        reasons = []
        for website in websites:
            found = await client.post("/v1/evaluate", json={**CART, "website": website})
            reasons += [t["reason"] for t in found.json()["trace"]]
        assert len(reasons) == len(list(rules()))
        assert set(reasons) <= {None, "no-line-matches", "nothing-left"}
        assert reasons.count(None) > len(ACTIONS)


class TestMoney:
    @pytest.mark.parametrize("name", [*CART_FIELDS, *MEASURES, *LINE_FIELDS])
    def test_every_field_is_known_to_be_an_amount_of_money_or_not(self, name: str) -> None:
        counted = {"quantity", "line_items", "found", "sku", "category"}
        assert (name in MONEY) != (name in counted)


class TestDocumented:
    def test_the_schema_knows_the_actions_of_the_domain(self) -> None:
        assert get_args(Action.model_fields["type"].annotation) == ACTIONS

    @pytest.mark.parametrize(
        "words", [LINE_FIELDS, CART_FIELDS, MEASURES, ACTIONS, ["max_quantity", "step"]], ids=",".join
    )
    def test_the_readme_names_every_word(self, words: Any) -> None:
        assert {word for word in words if f"`{word}`" not in README} == set()

    def test_the_readme_names_no_other_condition(self) -> None:
        examples = [json.loads(text) for text in re.findall(r"^    (\{.*\})$", README, re.MULTILINE)]
        assert len(examples) >= 3
        for example in examples:
            vocabulary.parse(example, vocabulary.LINES if "line" in example else vocabulary.CART)
