"""A cart price rule: whom and when it is for, what must hold, which lines it touches and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from conditions import Fault, Invalid, Node, parse

from promo_svc.domain.vocabulary import CART, LINES

ACTIONS = ("percent", "fixed_unit", "fixed_cart", "free_shipping")


@dataclass(frozen=True, slots=True)
class Rule:
    """`value` is percent, or minor units; `max_quantity` and `step` limit the units of a line. Empty `groups`: nobody."""

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
    coupon: str
    priority: int
    stop: bool
    condition: Node | None
    filter: Node | None
    action: str
    value: Fraction
    max_quantity: int
    step: int


def coupon_code(text: str) -> str:
    """How codes are compared: without surrounding space, and in upper case."""
    return text.strip().upper()


def check(body: Mapping[str, Any]) -> list[Fault]:
    """What is wrong with the trees of a rule, pointers relative to the body."""
    faults = []
    for name, vocabulary in (("condition", CART), ("filter", LINES)):
        if body.get(name) is not None:
            try:
                parse(body[name], vocabulary)
            except Invalid as error:
                faults += [Fault(f"/{name}{f.pointer}", f.code, f.detail) for f in error.faults]
    return faults


def rule_of(number: int, key: str, version: int, body: Mapping[str, Any]) -> Rule:
    """The typed rule of a checked body."""
    segments = body.get("segments") or {}
    return Rule(
        id=number,
        key=key,
        version=version,
        label=body.get("label") or body["name"],
        websites=frozenset(body.get("websites") or ()),
        groups=frozenset(body.get("groups") or ()),
        all_groups=bool(body.get("all_groups")),
        any_of=frozenset(segments.get("any_of") or ()),
        all_of=frozenset(segments.get("all_of") or ()),
        none_of=frozenset(segments.get("none_of") or ()),
        starts_at=body.get("starts_at"),
        ends_at=body.get("ends_at"),
        coupon=coupon_code(body.get("coupon") or ""),
        priority=body.get("priority", 0),
        stop=bool(body.get("stop")),
        condition=parse(body["condition"], CART) if body.get("condition") else None,
        filter=parse(body["filter"], LINES) if body.get("filter") else None,
        action=body["action"]["type"],
        value=Fraction(str(body["action"].get("value", 0))),
        max_quantity=body["action"].get("max_quantity") or 0,
        step=body["action"].get("step") or 0,
    )
