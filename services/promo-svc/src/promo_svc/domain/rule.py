"""A cart price rule: whom and when it is for, what must hold, which lines it touches and what it gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from conditions import Fault, Invalid, Leaf, Node, parse

from promo_svc.domain.vocabulary import CART, LINES, MONEY, conditions

ACTIONS = ("percent", "fixed_unit", "fixed_cart", "free_shipping")
MOST_CONDITIONS = 50
CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")
OF_MONEY = ("fixed_unit", "fixed_cart")
TREES = (("condition", CART), ("filter", LINES))


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """`value` is percent, or minor units of `currency`, which is also that of the carts it is for (empty: of all); `max_quantity`
    and `step` limit the units of a line. Empty `groups`: nobody.

    `uses_total` and `uses_per_customer`: how often its coupon may be used, 0 without limit. Rules differ by `id`.
    """

    id: int
    key: str
    version: int
    label: str
    websites: frozenset[str]
    groups: frozenset[str]
    all_groups: bool
    any_of: frozenset[str]
    all_of: frozenset[str]
    none_of: frozenset[str]
    starts_at: int | None
    ends_at: int | None
    currency: str
    coupon: str
    uses_total: int
    uses_per_customer: int
    priority: int
    stop: bool
    condition: Node | None
    filter: Node | None
    action: str
    value: Fraction
    max_quantity: int
    step: int


def coupon_code(typed: str) -> str:
    """How codes are compared: without regard to case. Empty for what cannot be one, so that nothing else looks like one."""
    return typed.upper() if CODE.fullmatch(typed) else ""


def check(body: Mapping[str, Any]) -> list[Fault]:
    """What is wrong with the trees of a rule, pointers relative to the body."""
    faults, found = [], list[Leaf]()
    for name, vocabulary in TREES:
        if body.get(name) is None:
            continue
        try:
            found += conditions(parse(body[name], vocabulary))
        except Invalid as error:
            faults += [Fault(f"/{name}{f.pointer}", f.code, f.detail) for f in error.faults]
    if len(found) > MOST_CONDITIONS:
        faults.append(Fault("/condition", "too-large", f"a rule has at most {MOST_CONDITIONS} conditions in all"))
    if not body.get("currency") and _says_money(body["action"]["type"], found):
        faults.append(Fault("/currency", "missing", "is needed: the action, or a condition, is an amount of money"))
    return faults


def _says_money(action: str, leaves: Iterable[Leaf]) -> bool:
    return action in OF_MONEY or any(leaf.params.name in MONEY for leaf in leaves)


def rule_of(number: int, key: str, version: int, body: Mapping[str, Any]) -> Rule:
    """The typed rule of a checked body. Raises whatever it meets in one that this version cannot read."""
    segments, action = body.get("segments") or {}, body["action"]
    if action["type"] not in ACTIONS:
        raise ValueError("unknown action")
    trees = {name: None if body.get(name) is None else parse(body[name], known) for name, known in TREES}
    found = [leaf for tree in trees.values() if tree is not None for leaf in conditions(tree)]
    currency = body.get("currency") or ""
    if not isinstance(currency, str) or (not currency and _says_money(action["type"], found)):
        raise ValueError("amounts without a currency")
    return Rule(
        id=number,
        key=key,
        version=version,
        label=body.get("label") or body["name"],
        websites=_texts(body.get("websites")),
        groups=_texts(body.get("groups")),
        all_groups=bool(body.get("all_groups")),
        any_of=_texts(segments.get("any_of")),
        all_of=_texts(segments.get("all_of")),
        none_of=_texts(segments.get("none_of")),
        starts_at=_whole(body.get("starts_at")),
        ends_at=_whole(body.get("ends_at")),
        currency=currency,
        coupon=coupon_code(body.get("coupon") or ""),
        uses_total=_whole(body.get("uses_total")) or 0,
        uses_per_customer=_whole(body.get("uses_per_customer")) or 0,
        priority=_whole(body.get("priority")) or 0,
        stop=bool(body.get("stop")),
        condition=trees["condition"],
        filter=trees["filter"],
        action=action["type"],
        value=Fraction(str(action.get("value", 0))),
        max_quantity=_whole(action.get("max_quantity")) or 0,
        step=_whole(action.get("step")) or 0,
    )


def _texts(value: Any) -> frozenset[str]:
    if not all(isinstance(item, str) for item in value or ()) or isinstance(value, str):
        raise TypeError("not a list of texts")
    return frozenset(value or ())


def _whole(value: Any) -> int | None:
    if value is not None and type(value) is not int:
        raise TypeError("not a whole number")
    return value
