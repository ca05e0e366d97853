"""Made-up carts on which every rule is run before it is saved: small, large, odd, in its audience and out of it, at its
bounds in time. What raises here would have raised in a shop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from promo_svc.domain.cart import MOST_ITEMS, MOST_PRICE, MOST_QUANTITY, MOST_TEXT, Line, Request
from promo_svc.domain.evaluate import RuleSet, evaluate, messages
from promo_svc.domain.rule import Rule

NOW = 1_800_000_000_000
MANY = 50
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**40, 1e-300, 2.5, "", " ", "007", "5e3", "1_000", "NaN", "2026-02-30", "9999-12-31",
    "é" * MOST_TEXT, "\x00", [], ["a", 1, None, ["b"]], {}, {"a": {"b": [1]}},
)  # fmt: skip
PLAIN = Line("plain", 1000)
ATTRIBUTES = {**{f"a{i}": value for i, value in enumerate(ODD)}, "color": "red"}
FILLED = Line("full", 1999, 3, "SKU-1", ("shoes/running", "sale"), ATTRIBUTES)


class Unsound(Exception):
    """The rule cannot be evaluated; the cause is what it met."""


def lines() -> Iterator[tuple[Line, ...]]:
    """The contents of the probe carts, every one a cart that the API takes."""
    yield ()
    yield (PLAIN,)
    yield tuple(Line(str(i), i, 1 + i % 7, f"{i:03}", (f"c{i % 5}/d",), {"n": i}, i % 9 != 0) for i in range(MANY))
    yield (FILLED, Line("free", 0), Line("dear", MOST_PRICE), Line("many", 1, MOST_QUANTITY), PLAIN)
    named = {"color": ODD[-1], "size": list(ODD[:MOST_ITEMS])}
    yield (Line("odd", 1, 1, "\x00'\"\\", ("", "/", "//", "é/" * 50), named),)


def requests(rule: Rule) -> Iterator[Request]:
    """Carts in and out of the rule's audience, before, at and after its bounds."""
    website = min(rule.websites, default="main")
    inside = (min(rule.groups, default="guest"), frozenset(rule.any_of | rule.all_of), (rule.coupon,))
    outside = ("nobody", rule.none_of, ())
    bounds = [at for at in (rule.starts_at, rule.ends_at) if at is not None]
    for at_ms in sorted({NOW, *(max(0, at + step) for at in bounds for step in (-1, 0, 1))}):
        for content in lines():
            for group, segments, coupons in (inside, outside):
                yield Request(
                    website, at_ms, content, group=group, segments=segments, coupons=coupons, shipping=MOST_PRICE
                )


def prove(rule: Rule, others: RuleSet) -> None:
    """Run a rule alone on every probe, and once among the other live ones. Raises Unsound."""

    def report(broken: Rule, error: Exception) -> None:
        if broken.id == rule.id:
            raise Unsound from error

    alone = RuleSet.compile(0, [rule])
    among = Request(min(rule.websites, default="main"), NOW, (FILLED, PLAIN), coupons=(rule.coupon,))
    try:
        for asked in requests(rule):
            msgspec.json.encode([evaluate(alone, asked, report), messages(alone, asked, report)])
        msgspec.json.encode(evaluate(others, among, report))
    except Unsound:
        raise
    except Exception as error:
        raise Unsound from error
