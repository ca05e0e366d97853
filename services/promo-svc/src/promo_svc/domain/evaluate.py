"""evaluate(rule set, request) -> result: a pure function, the same inputs give the same bytes.

Rounding: half up per line for percents and unit amounts; a fixed cart amount is split with a carry, so that its parts
sum to it. Rules run by priority, then id; each works on what earlier ones left of a line. A stopping rule keeps later
rules from the lines it discounted. Nothing goes below zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from conditions import holds

from promo_svc.domain.cart import Line, Request, Running
from promo_svc.domain.money import split
from promo_svc.domain.rule import Rule, coupon_code
from promo_svc.domain.vocabulary import missing_amount

HUNDRED = Fraction(100)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules of one version, indexed by what must match first: the coupon, and a segment that is required."""

    version: int
    rules: tuple[Rule, ...]
    open: tuple[Rule, ...]
    by_coupon: dict[str, tuple[Rule, ...]]
    by_segment: dict[str, tuple[Rule, ...]]

    @classmethod
    def compile(cls, version: int, rules: Iterable[Rule]) -> RuleSet:
        """Index rules once per version."""
        ordered = sorted(rules, key=lambda r: (r.priority, r.id))
        by_coupon: dict[str, list[Rule]] = defaultdict(list)
        by_segment: dict[str, list[Rule]] = defaultdict(list)
        for rule in ordered:
            if rule.coupon:
                by_coupon[rule.coupon].append(rule)
            elif rule.any_of or rule.all_of:
                for key in rule.any_of or [min(rule.all_of)]:
                    by_segment[key].append(rule)
        plain = tuple(r for r in ordered if not r.coupon and not r.any_of and not r.all_of)
        return cls(version, tuple(ordered), plain, _freeze(by_coupon), _freeze(by_segment))

    def candidates(self, request: Request) -> list[Rule]:
        """Rules that could apply, in the order they are applied in: cost follows these, not the rules stored."""
        found = set(self.open)
        for code in request.coupons:
            found.update(self.by_coupon.get(coupon_code(code), ()))
        for key in request.segments:
            found.update(self.by_segment.get(key, ()))
        return sorted(found, key=lambda r: (r.priority, r.id))


def _freeze(index: dict[str, list[Rule]]) -> dict[str, tuple[Rule, ...]]:
    return {key: tuple(rules) for key, rules in index.items()}


def out_of_scope(rule: Rule, request: Request) -> str | None:
    """Why a rule is not for this request, as a slug; None when it is."""
    tests = (
        ("other-website", bool(rule.websites) and request.website not in rule.websites),
        ("not-started", rule.starts_at is not None and request.at_ms < rule.starts_at),
        ("ended", rule.ends_at is not None and request.at_ms >= rule.ends_at),
        ("other-group", not rule.all_groups and request.group not in rule.groups),
        ("not-in-segment", bool(rule.any_of) and not rule.any_of & request.segments),
        ("not-in-segment", not rule.all_of <= request.segments),
        ("in-excluded-segment", bool(rule.none_of & request.segments)),
        ("coupon-not-given", bool(rule.coupon) and rule.coupon not in {coupon_code(c) for c in request.coupons}),
    )
    return next((slug for slug, fails in tests if fails), None)


def evaluate(rules: RuleSet, request: Request) -> dict[str, Any]:
    """Lines, totals, applied rules, hints, and a trace with a reason for every rule that could have applied."""
    running = Running(request, [0] * len(request.lines))
    applied: list[dict[str, Any]] = []
    trace, hints, parts = [], [], defaultdict(list)
    for rule in rules.candidates(request):
        reason = out_of_scope(rule, request)
        if reason is None and rule.condition is not None and not holds(rule.condition, running, request.at_ms):
            reason = "condition-not-met"
            more = missing_amount(rule.condition, running, request.at_ms)
            if more is not None:
                hints.append({"rule": rule.key, "label": rule.label, "missing": more})
        if reason is None:
            given, shipping, reason = _apply(rule, running)
            for index, amount in given.items():
                parts[index].append({"rule": rule.key, "amount": amount, "label": rule.label})
            if given or shipping:
                total = sum(given.values())
                applied.append({"rule": rule.key, "label": rule.label, "amount": total, "shipping": shipping})
        trace.append({"rule": rule.key, "version": rule.version, "applied": reason is None, "reason": reason})
    return _result(rules, running, applied=applied, trace=trace, hints=hints, parts=parts)


def _eligible(rule: Rule, running: Running) -> tuple[list[tuple[int, int]], str]:
    """(line, units) the rule may touch, and the reason when there are none."""
    found, reason = [], "no-line-matches"
    for index, line in enumerate(running.request.lines):
        if (
            not line.discountable
            or line.price < 0
            or (rule.filter and not holds(rule.filter, line, running.request.at_ms))
        ):
            continue
        if index in running.stopped:
            reason = "stopped"
            continue
        quantity = _units(rule, line)
        if quantity:
            found.append((index, quantity))
    return found, reason


def _units(rule: Rule, line: Line) -> int:
    quantity = min(line.quantity, rule.max_quantity) if rule.max_quantity else line.quantity
    stepped = rule.step and rule.action in ("percent", "fixed_unit")
    return quantity // rule.step * rule.step if stepped else quantity


def _apply(rule: Rule, running: Running) -> tuple[dict[int, int], int, str | None]:
    """What the rule gives: per line, off shipping, and why nothing."""
    lines, reason = _eligible(rule, running)
    if not lines:
        return {}, 0, reason
    if rule.action == "free_shipping":
        shipping = running.request.shipping - running.shipping_given
        running.shipping_given += shipping
        return {}, shipping, None
    given = {i: amount for i, amount in _discounts(rule, running, lines) if amount}
    if rule.stop:
        running.stopped |= set(given)
    return given, 0, None if given else "nothing-left"


def _discounts(rule: Rule, running: Running, lines: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    bases = {i: _base(running, i, units) for i, units in lines}
    if rule.action == "percent":
        share = min(rule.value, HUNDRED) / HUNDRED
        return [(i, running.give(i, bases[i] * share)) for i, _ in lines]
    if rule.action == "fixed_unit":
        return [(i, running.give(i, rule.value * units)) for i, units in lines]
    pot = min(int(rule.value), int(sum(bases.values())))
    shares = split(pot, [bases[i] for i, _ in lines])
    return [(i, running.give(i, Fraction(part))) for (i, _), part in zip(lines, shares, strict=True)]


def _base(running: Running, index: int, units: int) -> Fraction:
    """What is left of the eligible units: earlier discounts count in proportion when only some units are eligible."""
    line = running.request.lines[index]
    return Fraction(units * line.price) - Fraction(running.given[index] * units, line.quantity)


def _result(rules: RuleSet, running: Running, **found: Any) -> dict[str, Any]:
    request, parts = running.request, found.pop("parts")
    lines = [
        {
            "id": line.id, "price": line.price, "quantity": line.quantity, "row_total": line.row,
            "discount": running.given[i], "final": running.left(i), "rules": parts[i],
        }
        for i, line in enumerate(request.lines)
    ]  # fmt: skip
    discount = sum(running.given)
    subtotal = sum(line.row for line in request.lines)
    return {
        "version": rules.version,
        "membership_version": request.membership_version,
        "currency": request.currency,
        "lines": lines,
        "subtotal": subtotal,
        "items_discount": discount,
        "shipping": request.shipping,
        "shipping_discount": running.shipping_given,
        "discount": discount + running.shipping_given,
        "grand_total": subtotal - discount + request.shipping - running.shipping_given,
        **found,
    }
