"""evaluate(rule set, request) -> result: a pure function, the same inputs give the same bytes.

Rounding: half up per line for percents and unit amounts; a fixed cart amount is split with a carry, so that its parts
sum to it. Rules run by priority, then id; each works on what earlier ones left of a line. A stopping rule keeps later
rules from the lines it discounted. Nothing goes below zero: no line, and none of the units a rule may touch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from conditions import holds
from conditions.patterns import watched

from promo_svc.domain.cart import Budget, DearCart, Request, Running
from promo_svc.domain.money import half_up, split
from promo_svc.domain.rule import Rule, coupon_code
from promo_svc.domain.vocabulary import missing_amount, unmet

HUNDRED, BROKEN = Fraction(100), "broken"
Report = Callable[[Rule, Exception], None]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules of one version, indexed by what must match first: the coupon, and a segment that is required.

    `unreadable`: (key, version) of the rules left out because this version of the code cannot read them.
    """

    version: int
    rules: tuple[Rule, ...]
    unreadable: tuple[tuple[str, int], ...]
    open: tuple[Rule, ...]
    by_coupon: dict[str, tuple[Rule, ...]]
    by_segment: dict[str, tuple[Rule, ...]]

    @classmethod
    def compile(cls, version: int, rules: Iterable[Rule], unreadable: Iterable[tuple[str, int]] = ()) -> RuleSet:
        """Index rules once per version."""
        ordered = sorted(rules, key=_order)
        by_coupon: dict[str, list[Rule]] = defaultdict(list)
        by_segment: dict[str, list[Rule]] = defaultdict(list)
        for rule in ordered:
            if rule.coupon:
                by_coupon[rule.coupon].append(rule)
            elif rule.any_of or rule.all_of:
                for key in rule.any_of or [min(rule.all_of)]:
                    by_segment[key].append(rule)
        plain = tuple(r for r in ordered if not r.coupon and not r.any_of and not r.all_of)
        return cls(version, tuple(ordered), tuple(unreadable), plain, _freeze(by_coupon), _freeze(by_segment))

    def candidates(self, request: Request, codes: Collection[str]) -> list[Rule]:
        """Rules of the website that could apply, in the order they are applied in: cost follows these, not the rules stored."""
        found = {rule.id: rule for rule in self.open}
        for code in codes:
            found |= {rule.id: rule for rule in self.by_coupon.get(code, ())}
        for key in request.segments:
            found |= {rule.id: rule for rule in self.by_segment.get(key, ())}
        here = (rule for rule in found.values() if not rule.websites or request.website in rule.websites)
        return sorted(here, key=_order)


def _order(rule: Rule) -> tuple[int, int]:
    return rule.priority, rule.id


def _freeze(index: dict[str, list[Rule]]) -> dict[str, tuple[Rule, ...]]:
    return {key: tuple(rules) for key, rules in index.items()}


def out_of_scope(rule: Rule, request: Request, codes: Collection[str]) -> str | None:
    """Why a rule is not for this request, as a slug; None when it is. `codes` are the coupons given, as compared."""
    tests = (
        ("killed", rule.key in request.killed),
        ("other-website", bool(rule.websites) and request.website not in rule.websites),
        ("not-started", rule.starts_at is not None and request.at_ms < rule.starts_at),
        ("ended", rule.ends_at is not None and request.at_ms >= rule.ends_at),
        ("other-group", not rule.all_groups and request.group not in rule.groups),
        ("not-in-segment", bool(rule.any_of) and not rule.any_of & request.segments),
        ("not-in-segment", not rule.all_of <= request.segments),
        ("in-excluded-segment", bool(rule.none_of & request.segments)),
        ("segment-unknown", bool(rule.none_of & request.unknown)),
        ("coupon-not-given", bool(rule.coupon) and rule.coupon not in codes),
    )
    return next((slug for slug, fails in tests if fails), None)


def _not_given(rule: Rule, request: Request, used_up: Container[int]) -> str | None:
    if rule.id in used_up:
        return "used-up"
    return "other-currency" if rule.currency not in ("", request.currency) else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule would do: per line, off shipping, the hint it gives, and why it does nothing."""

    reason: str | None
    lines: Mapping[int, int] = field(default_factory=dict)
    shipping: int = 0
    missing: int | None = None


def evaluate(
    rules: RuleSet, request: Request, report: Report, budget: Budget | None = None, used_up: Container[int] = ()
) -> dict[str, Any]:
    """Lines, totals, applied rules, hints, and a trace with a reason for every rule that could have applied.

    A rule that raises, or takes longer than its `budget`, is left out alone: its reason is `broken`, and `report` is told. The
    rules (ids) of which no use is left are `used_up`, and give nothing.
    Raises DearCart when there is none left for the others: a cart has all of its rules or no answer.
    """
    budget = budget or Budget()
    with watched(budget.check):
        return _evaluated(rules, Running.start(request, budget), report, used_up)


def _evaluated(rules: RuleSet, running: Running, report: Report, used_up: Container[int]) -> dict[str, Any]:
    request = running.request
    codes = given_codes(request)
    applied: list[dict[str, Any]] = []
    trace, hints, parts = [_traced(key, version, BROKEN) for key, version in rules.unreadable], [], defaultdict(list)
    for rule in rules.candidates(request, codes):
        running.budget.begin()
        try:
            found = _outcome(rule, running, codes, used_up)
        except DearCart:
            raise
        except Exception as error:
            report(rule, error)
            found = Outcome(BROKEN)
        running.give(found.lines, found.shipping)
        if rule.stop:
            running.stopped |= set(found.lines)
        for index, amount in found.lines.items():
            parts[index].append({"rule": rule.key, "amount": amount, "label": rule.label})
        if found.lines or found.shipping:
            total = sum(found.lines.values())
            applied.append({"rule": rule.key, "label": rule.label, "amount": total, "shipping": found.shipping})
        if found.missing is not None:
            hints.append({"rule": rule.key, "label": rule.label, "missing": found.missing})
        trace.append(_traced(rule.key, rule.version, found.reason))
    return _result(rules, running, applied=applied, trace=trace, hints=hints, parts=parts)


def messages(rules: RuleSet, request: Request, report: Report) -> list[dict[str, Any]]:
    """Labels of the rules without coupon that are for this visitor, whatever is in the cart."""
    found = []
    for rule in rules.candidates(request, ()):
        try:
            if out_of_scope(rule, request, ()) is None:
                found.append({"rule": rule.key, "label": rule.label})
        except Exception as error:
            report(rule, error)
    return found


def given_codes(request: Request) -> frozenset[str]:
    """The coupons of a request as they are compared; what cannot be a code is none."""
    return frozenset(coupon_code(typed) for typed in request.coupons) - {""}


def _traced(key: str, version: int, reason: str | None) -> dict[str, Any]:
    return {"rule": key, "version": version, "applied": reason is None, "reason": reason}


def _outcome(rule: Rule, running: Running, codes: Collection[str], used_up: Container[int]) -> Outcome:
    """What the rule would do now; nothing is given yet, so that a rule that raises half-way leaves nothing behind."""
    at_ms = running.request.at_ms
    reason = out_of_scope(rule, running.request, codes) or _not_given(rule, running.request, used_up)
    if reason is not None:
        return Outcome(reason)
    failing = [] if rule.condition is None else unmet(rule.condition, running, at_ms)
    if failing:
        return Outcome("condition-not-met", missing=missing_amount(failing, running))
    lines, reason = _eligible(rule, running)
    if not lines:
        return Outcome(reason)
    if rule.action == "free_shipping":
        left = running.request.shipping - running.shipping_given
        return Outcome(None if left else "nothing-left", shipping=left)
    given = {i: amount for i, amount in _discounts(rule, running, lines) if amount}
    return Outcome(None if given else "nothing-left", given)


def _eligible(rule: Rule, running: Running) -> tuple[list[tuple[int, int]], str]:
    """(line, units) the rule may touch, and the reason when there are none."""
    found, reason = [], "no-line-matches"
    for index, line in running.lines() if rule.filter else enumerate(running.request.lines):
        if not line.discountable or (rule.filter and not holds(rule.filter, line, running.request.at_ms)):
            continue
        if index in running.stopped:
            reason = "stopped"
            continue
        quantity = min(line.quantity, rule.max_quantity) if rule.max_quantity else line.quantity
        quantity = quantity // rule.step * rule.step if rule.step else quantity
        if quantity:
            found.append((index, quantity))
    return found, reason


def _discounts(rule: Rule, running: Running, lines: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(line, amount) of each. Of eligible units that are only some, earlier discounts count in proportion."""
    asked, left, value = running.request.lines, running.left, rule.value
    if rule.action == "fixed_cart":
        bases = [
            left[i] if units == asked[i].quantity else Fraction(units * left[i], asked[i].quantity)
            for i, units in lines
        ]
        parts = split(min(int(value), int(sum(bases))), bases)
        return [(i, running.most(i, part)) for (i, _), part in zip(lines, parts, strict=True)]
    if rule.action == "percent":
        share, whole = (min(value, HUNDRED) / HUNDRED).as_integer_ratio()
        return [(i, running.most(i, half_up(units * left[i] * share, asked[i].quantity * whole))) for i, units in lines]
    off, part = value.as_integer_ratio()
    return [
        (i, running.most(i, min(half_up(off * units, part), half_up(units * left[i], asked[i].quantity))))
        for i, units in lines
    ]


def _result(rules: RuleSet, running: Running, **found: Any) -> dict[str, Any]:
    request, parts = running.request, found.pop("parts")
    lines = [
        {
            "id": line.id, "price": line.price, "quantity": line.quantity, "row_total": line.row,
            "discount": line.row - running.left[i], "final": running.left[i], "rules": parts[i],
        }
        for i, line in enumerate(request.lines)
    ]  # fmt: skip
    discount = request.subtotal - running.subtotal
    return {
        "version": rules.version,
        "currency": request.currency,
        "lines": lines,
        "subtotal": request.subtotal,
        "items_discount": discount,
        "shipping": request.shipping,
        "shipping_discount": running.shipping_given,
        "discount": discount + running.shipping_given,
        "grand_total": running.subtotal + request.shipping - running.shipping_given,
        **found,
    }
