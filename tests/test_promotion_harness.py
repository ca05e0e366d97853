"""The promotion runner can fail: whatever a case expects, another expectation is told; what it cannot say is unsupported."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.promotions import TOTALS, play
from tests.conformance.report import Unsupported

CASES = [
    case
    for path in sorted((Path(__file__).parent / "cases" / "promotions").glob("*.json"))
    for case in json.loads(path.read_text())["cases"]
]
BY_ID = {case["id"]: case for case in CASES}


def wrong(case: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The case with one expectation after the other made wrong."""

    def changed(*way: str, to: Any) -> tuple[str, dict[str, Any]]:
        other = copy.deepcopy(case)
        at = other["expect"]
        for step in way[:-1]:
            at = at[step]
        at[way[-1]] = to
        return "/".join(way), other

    for name, value in case["expect"].items():
        if name in TOTALS:
            yield changed(name, to=str(Decimal(value) + Decimal("0.01")))
        elif name == "applied":
            yield changed(name, to=[*value, "nobody"])
        elif name == "applied_by_line":
            yield from (changed(name, line, to=[*rules, "nobody"]) for line, rules in value.items())
        elif name == "line_discounts":
            yield from (changed(name, line, to=str(Decimal(v) + Decimal("0.01"))) for line, v in value.items())
            yield changed(name, "no-such-line", to="0.00")
        elif name == "rule_line_discounts":
            for rule, lines in value.items():
                yield from (
                    changed(name, rule, line, to=str(Decimal(v) - Decimal("0.01"))) for line, v in lines.items()
                )
                yield changed(name, rule, "no-such-line", to="0.00")


class TestRunner:
    def test_our_own_cases_ask_nothing_that_is_not_there(self) -> None:
        assert {case["id"]: play(case) for case in CASES} == {case["id"]: [] for case in CASES}
        assert len(BY_ID) == len(CASES)

    def test_every_wrong_expectation_is_told(self) -> None:
        told = {(case["id"], what): play(other) for case in CASES for what, other in wrong(case)}
        assert [key for key, differences in told.items() if len(differences) != 1] == []
        assert len(told) > 2 * len(CASES)

    def test_all_differences_of_a_case_are_told_together(self) -> None:
        case = copy.deepcopy(BY_ID["an-amount-is-shared-in-proportion"])
        case["expect"] |= {"items_discount": "1.00", "grand_total": "1.00", "applied": [], "gross_after": "5.00"}
        case["expect"]["line_discounts"] = {"large": "0.00", "small": "0.00"}
        assert len(play(case)) == 5

    @pytest.mark.parametrize(
        ("part", "name", "value"),
        [
            ("expect", "gross_after", "5.00"), ("cart", "shipping_methods", [{"id": "a"}]), ("", "kind", "catalog_price"),
            ("", "tax", {"rate": "20"}), ("rules", "exclusive", True), ("rules", "when", {"moon_is": "full"}),
            ("rules", "filter", {"moon": "full"}), ("rules", "action", {"type": "free_gift", "gift_sku": "G"}),
            ("rules", "action", {"type": "percent_off_shipping", "value": "50"}), ("rules", "coupon", "not a code"),
            ("rules", "action", {"type": "percent_off_unit", "value": "10", "max_amount": "5.00"}),
            ("lines", "min_unit_price", "5.00"), ("lines", "qty", "1.5"), ("lines", "price", "1.005"),
        ],
    )  # fmt: skip
    def test_what_we_cannot_say_is_unsupported(self, part: str, name: str, value: Any) -> None:
        case = copy.deepcopy(BY_ID["an-amount-is-shared-in-proportion"])
        places = {"": case, "expect": case["expect"], "cart": case["cart"], "rules": case["rules"][0]}
        places["lines"] = case["cart"]["lines"][0]
        places[part][name] = value
        with pytest.raises(Unsupported):
            play(case)

    def test_a_source_that_lists_only_discounted_lines_says_that_the_others_have_none(self) -> None:
        case = copy.deepcopy(BY_ID["an-amount-is-shared-in-proportion"])
        case["expect"] = {"line_discounts": {"large": "10.00"}}
        assert play(case) == []
        case["source"] = {"project": "Medusa"}
        assert play(case) == ["line small: 2, not 0"]
