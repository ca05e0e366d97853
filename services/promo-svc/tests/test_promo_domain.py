"""Amounts: splits sum, nothing goes below zero, and the reference's worked numbers."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from promo_svc.domain.cart import Line, Request
from promo_svc.domain.evaluate import RuleSet, messages
from promo_svc.domain.evaluate import evaluate as evaluated
from promo_svc.domain.money import half_up, split
from promo_svc.domain.rule import Rule, rule_of


def rules(*bodies: dict[str, object]) -> RuleSet:
    base = {"name": "r", "all_groups": True, "currency": "EUR"}
    return RuleSet.compile(1, [rule_of(i, f"r{i}", 1, {**base, **b}) for i, b in enumerate(bodies)])


def evaluate(ruleset: RuleSet, request: Request) -> dict[str, Any]:
    """No rule here may be broken."""

    def report(rule: Rule, error: Exception) -> None:
        raise error

    return evaluated(ruleset, request, report)


def cart(*lines: tuple[int, int]) -> Request:
    return Request("main", 0, tuple(Line(str(i), price, quantity) for i, (price, quantity) in enumerate(lines)))


class TestReferenceNumbers:
    def test_a_fixed_amount_is_spread_with_a_carry(self) -> None:
        found = evaluate(rules({"action": {"type": "fixed_cart", "value": 500}}), cart((1000, 1), (2000, 1), (500, 1)))
        assert [line["discount"] for line in found["lines"]] == [143, 286, 71]

    def test_percents_round_half_up_per_line(self) -> None:
        found = evaluate(rules({"action": {"type": "percent", "value": 50}}), cart((599, 1), (1599, 1)))
        assert [line["discount"] for line in found["lines"]] == [300, 800]

    def test_twenty_percent_then_ten_is_seventy_and_ten_then_twenty_percent_seventy_two(self) -> None:
        percent, fixed = {"type": "percent", "value": 20}, {"type": "fixed_unit", "value": 1000}
        one = evaluate(rules({"action": percent, "priority": 0}, {"action": fixed, "priority": 1}), cart((10_000, 1)))
        two = evaluate(rules({"action": percent, "priority": 1}, {"action": fixed, "priority": 0}), cart((10_000, 1)))
        assert (one["grand_total"], two["grand_total"]) == (7_000, 7_200)

    def test_a_stopping_rule_keeps_later_rules_from_its_lines_only(self) -> None:
        sku = lambda *skus: {"line": "sku", "op": "in", "value": list(skus)}  # noqa: E731
        fixed = lambda value: {"type": "fixed_unit", "value": value}  # noqa: E731
        ruleset = rules(
            {"action": fixed(10), "filter": sku("1", "2"), "priority": 0},
            {"action": fixed(5), "filter": sku("2", "3"), "priority": 1, "stop": True},
            {"action": fixed(2), "filter": sku("3", "4"), "priority": 2},
        )
        lines = tuple(Line(str(i), price, sku=str(i)) for i, price in ((1, 40), (2, 30), (3, 20), (4, 10)))
        found = evaluate(ruleset, Request("main", 0, lines))
        assert [line["discount"] for line in found["lines"]] == [10, 15, 5, 2]

    def test_a_running_subtotal_sees_what_stronger_rules_took(self) -> None:
        condition = {"cart": "subtotal", "op": "gte", "value": 7_500}
        percent = {"type": "percent", "value": 30}
        found = evaluate(
            rules({"action": percent}, {"action": percent, "condition": condition, "priority": 1}), cart((10_000, 1))
        )
        assert [t["reason"] for t in found["trace"]] == [None, "condition-not-met"]


AMOUNT, PERCENT = {"type": "fixed_cart", "value": 1000}, {"type": "percent", "value": 10}


class TestCurrency:
    @pytest.mark.parametrize(
        ("rule", "discounts"),
        [
            ({"action": AMOUNT}, {"EUR": 1000, "JPY": "other-currency", "KWD": "other-currency"}),
            ({"action": AMOUNT, "currency": "JPY"}, {"EUR": "other-currency", "JPY": 1000}),
            ({"action": PERCENT, "currency": None}, {"EUR": 500, "JPY": 500}),
            ({"action": PERCENT}, {"EUR": 500, "JPY": "other-currency"}),
            (
                {"action": PERCENT, "condition": {"cart": "subtotal", "op": "gte", "value": 9000}},
                {"EUR": "condition-not-met", "JPY": "other-currency"},
            ),
        ],
    )
    def test_an_amount_is_of_one_currency_and_no_cart_in_another_has_the_rule_or_its_hint(
        self, rule: dict[str, Any], discounts: dict[str, Any]
    ) -> None:
        for currency, wanted in discounts.items():
            found = evaluate(rules(rule), msgspec.structs.replace(cart((5000, 1)), currency=currency))
            assert (found["trace"][0]["reason"] or found["discount"]) == wanted
            assert len(found["hints"]) == (wanted == "condition-not-met")

    def test_a_label_is_for_everybody(self) -> None:
        asked = msgspec.structs.replace(cart(), currency="JPY")
        assert len(messages(rules({"action": AMOUNT}), asked, lambda *_: None)) == 1


class TestWebsites:
    def test_a_trace_says_nothing_of_the_rules_of_other_websites(self) -> None:
        action = {"type": "percent", "value": 10}
        whose = ({"coupon": "CODE"}, {"segments": {"any_of": ["vip"]}}, {})
        ruleset = rules(
            *({**kind, "action": action, "websites": [name]} for name in ("main", "other") for kind in whose)
        )
        asked = replace(cart((1000, 1)), coupons=("code",), segments=frozenset(["vip"]))
        assert [t["rule"] for t in evaluate(ruleset, asked)["trace"]] == ["r0", "r1", "r2"]
        assert [t["rule"] for t in evaluate(ruleset, replace(asked, website="other"))["trace"]] == ["r3", "r4", "r5"]
        assert evaluate(ruleset, replace(asked, website="third"))["trace"] == []


class TestInvariants:
    @given(st.integers(0, 10**7), st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
    def test_parts_sum_to_the_total_and_a_zero_gets_nothing(self, total: int, weights: list[int]) -> None:
        parts = split(total, [Fraction(w) for w in weights])
        assert sum(parts) == (total if any(weights) else 0)
        assert all(part == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)

    @given(st.integers(0, 10**15), st.lists(st.fractions(0, 10**9, max_denominator=99), min_size=1, max_size=12))
    def test_a_split_is_what_carrying_the_rest_from_line_to_line_gives(
        self, total: int, weights: list[Fraction]
    ) -> None:
        carry, wanted = Fraction(0), []
        for weight in weights:
            share = total * weight / sum(weights) + carry if sum(weights) else Fraction(0)
            wanted.append(floor(share + Fraction(1, 2)) if weight else 0)
            carry = share - wanted[-1]
        assert split(total, weights) == wanted

    @given(
        st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 9)), min_size=1, max_size=6),
        st.lists(
            st.tuples(st.sampled_from(["percent", "fixed_unit", "fixed_cart"]), st.integers(0, 100), st.booleans()),
            max_size=6,
        ),
    )
    def test_no_line_goes_below_zero_and_the_parts_are_the_whole(
        self, lines: list[tuple[int, int]], actions: list[tuple[str, int, bool]]
    ) -> None:
        ruleset = rules(
            *({"action": {"type": k, "value": v}, "stop": s, "priority": i} for i, (k, v, s) in enumerate(actions))
        )
        found = evaluate(ruleset, cart(*lines))
        assert all(0 <= line["discount"] <= line["row_total"] for line in found["lines"])
        assert found["items_discount"] == sum(line["discount"] for line in found["lines"])
        assert found["items_discount"] == sum(rule["amount"] for rule in found["applied"])
        assert all(line["discount"] == sum(r["amount"] for r in line["rules"]) for line in found["lines"])
        assert evaluate(ruleset, cart(*lines)) == found

    def test_half_goes_up(self) -> None:
        assert [half_up(n, 2) for n in (1, 3, 4)] == [1, 2, 2]


class TestUnknown:
    @pytest.mark.parametrize(
        ("unknown", "killed", "discount"),
        [("", "", 100), ("vip", "", 100), ("staff", "", 0), ("", "r0", 0), ("", "r1", 100)],
    )
    def test_who_is_not_known_to_be_out_gets_nothing_that_is_for_those_outside_and_nobody_what_is_killed(
        self, unknown: str, killed: str, discount: int
    ) -> None:
        action = {"type": "percent", "value": "10"}
        ruleset = rules({"action": action, "segments": {"any_of": [], "all_of": [], "none_of": ["staff"]}})
        names = {"unknown": frozenset([unknown] if unknown else []), "killed": frozenset([killed] if killed else [])}
        assert evaluate(ruleset, msgspec.structs.replace(cart((1000, 1)), **names))["discount"] == discount
