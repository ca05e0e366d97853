"""Made-up carts on which every rule is run before it is saved: small, large, odd, in its audience and out of it, at its
bounds in time, and as dear as a cart can be. What raises or takes long here would have done so in a shop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import shake_128
from typing import Any

import msgspec
from conditions import Leaf

from promo_svc.domain.cart import (
    DEAR_S,
    MOST_ITEMS,
    MOST_LINES,
    MOST_LISTED,
    MOST_PRICE,
    MOST_QUANTITY,
    MOST_SHORT,
    MOST_TEXT,
    Budget,
    Dear,
    Line,
    Request,
)
from promo_svc.domain.evaluate import RuleSet, evaluate, messages
from promo_svc.domain.rule import Rule
from promo_svc.domain.vocabulary import ATTRIBUTE, LineField, conditions

NOW = 1_800_000_000_000
MOST_PROBING_S = 4.0  # of a thread's own time, for all that is done before a rule is saved
TRIES, MANY = 3, 50
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**40, 1e-300, 2.5, "", " ", "007", "5e3", "1_000", "NaN", "2026-02-30", "9999-12-31",
    "é" * MOST_TEXT, "\x00", [], ["a", 1, None, ["b"]], {}, {"a": {"b": [1]}},
)  # fmt: skip
PLAIN = Line("plain", 1000)
ATTRIBUTES = {**{f"a{i}": value for i, value in enumerate(ODD)}, "color": "red"}
FILLED = Line("full", 1999, 3, "SKU-1", ("shoes/running", "sale"), ATTRIBUTES)


HEAVY_LINES = (MOST_LINES // 20, MOST_LINES)  # what is dear already with few is not tried with all
HEAVY_TEXT = 380  # bytes per line, so that the body of the whole cart is one that is taken
TEXTUAL, MOST_ALONE = ("sku", "category"), 4  # fields of a line; so many fields are tried with all there can be in them


class Unsound(Exception):
    """The rule cannot be evaluated; the cause is what it met."""


class Endless(Exception):
    """To find out takes longer than it may."""


def bounded(own_time: Callable[[], float]) -> Callable[[], float]:
    """The clock of a thread, for MOST_PROBING_S from now on: whoever looks at it after that raises Endless."""
    until = own_time() + MOST_PROBING_S

    def clock() -> float:
        now = own_time()
        if now > until:
            raise Endless
        return now

    return clock


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
                    website, at_ms, content, currency=currency_of(rule), group=group, segments=segments, coupons=coupons,
                    shipping=MOST_PRICE,
                )  # fmt: skip


def currency_of(rule: Rule) -> str:
    """One that a cart for it can be in."""
    return rule.currency or "EUR"


def heavy(rules: Sequence[Rule], count: int, *, salt: int = 0, alone: int = MOST_ALONE) -> Iterator[tuple[Line, ...]]:
    """Carts of `count` lines that are as much work as the API takes: texts in the letters the rules look for, others, and
    lists of what is work to compare; in all the rules ask for, and all of it where the most conditions look (`alone` fields).

    Another `salt` gives other texts: what was seen before is looked up, not worked on.
    """
    asked = [leaf.params for rule in rules for leaf in _leaves(rule)]
    literals = "".join(str(params.literal) for params in asked)
    looked_at = Counter(params.name for params in asked if params.name in TEXTUAL or params.name.startswith(ATTRIBUTE))
    everywhere = sorted({*TEXTUAL, *looked_at})
    if not looked_at:  # whatever stands in a line is the same to the rules
        yield next(_texts(everywhere, literals, count, salt))
        return
    for places in (everywhere, *([name] for name, _ in looked_at.most_common(alone))):
        yield from _texts(places, literals, count, salt)
        yield from _lists([place for place in places if place != "sku"], literals, count, salt)


def _leaves(rule: Rule) -> list[Leaf]:
    return [leaf for tree in (rule.condition, rule.filter) if tree is not None for leaf in conditions(tree)]


def _texts(places: Sequence[str], literals: str, count: int, salt: int) -> Iterator[tuple[Line, ...]]:
    few = "".join(dict.fromkeys(letter for letter in literals if letter.isalnum()))[:2]
    for alphabet in ("a/" + literals, few or "ab", "αβγδéñ", "/"):
        length = HEAVY_TEXT // len(places) // max(len(letter.encode()) for letter in alphabet)
        text = _letters(alphabet, count + length, salt)
        yield tuple(_line(i, places, text[i : i + length]) for i in range(count))


def _lists(places: Sequence[str], literals: str, count: int, salt: int) -> Iterator[tuple[Line, ...]]:
    letters = _letters("a/" + literals, count + MOST_ITEMS, salt)
    each = min(MOST_ITEMS, MOST_LISTED // count // max(1, len(places)) or 1)
    compared: list[Callable[[int], str]] = [
        lambda n: letters[n : n + 8],
        lambda n: f"2{salt:03}-11-24T10:{n % 60:02}:{n // 60:02}+01:00",
        lambda n: f"{n:029}.{salt}5",
    ]  # fmt: skip
    for text_of in compared if places else ():
        yield tuple(_line(i, places, "", [text_of(i + n) for n in range(each)]) for i in range(count))


def _line(number: int, places: Sequence[str], text: str, listed: Sequence[str] = ()) -> Line:
    """A line with a text, or a list where there can be one, in these fields."""
    named = {name.removeprefix(ATTRIBUTE): list(listed) or text for name in places if name.startswith(ATTRIBUTE)}
    categories = (tuple(listed) or (text[:MOST_SHORT], text[MOST_SHORT:])) if "category" in places else ()
    return Line(str(number), 1000, 2, text[:MOST_SHORT] if "sku" in places else "", categories, named)


def _letters(alphabet: str, length: int, salt: int) -> str:
    """A text in which the letters stand in no order."""
    return "".join(alphabet[number % len(alphabet)] for number in shake_128(b"%d" % salt).digest(length))


def weigh(rule: Rule, own_time: Callable[[], float]) -> None:
    """Run a rule on the carts that are the most work, and each of its conditions on lines by itself, for one that does not
    hold here hides others. `own_time`: seconds of CPU spent so far. Raises Dear."""
    alone = RuleSet.compile(0, [rule])
    for count in HEAVY_LINES:
        for contents in zip(*(heavy([rule], count, salt=salt) for salt in range(TRIES)), strict=True):
            # The next one only if those before took long: a busy machine is nobody's fault.
            if all(spent(alone, content, own_time) > DEAR_S for content in contents):
                raise Dear


def spent(alone: RuleSet, content: tuple[Line, ...], own_time: Callable[[], float]) -> float:
    """What the one rule of a set takes for a cart of these lines, or its conditions on lines do, whichever is more. After
    DEAR_S it is run no further."""
    (rule,) = alone.rules
    whole, began = _took(alone, _within(rule, content), own_time), own_time()
    for leaf in _leaves(rule):
        if isinstance(leaf.type, LineField):
            for line in content:
                leaf.type.test(leaf.params, line, NOW)
            own_time()
    return max(whole, own_time() - began)


def bare(content: tuple[Line, ...], own_time: Callable[[], float]) -> float:
    """What such a cart takes without any rule, whatever else the machine does meanwhile."""
    nothing = RuleSet.compile(0, [])
    return min(_took(nothing, Request("main", NOW, content), own_time) for _ in range(3))


def _took(rules: RuleSet, asked: Request, own_time: Callable[[], float]) -> float:
    began = own_time()
    evaluate(rules, asked, lambda *_: None, Budget(own_time))
    return own_time() - began


def _within(rule: Rule, content: tuple[Line, ...]) -> Request:
    """A cart that the rule is for."""
    at_ms = rule.starts_at if rule.starts_at is not None else NOW if rule.ends_at is None else max(0, rule.ends_at - 1)
    return Request(
        min(rule.websites, default="main"), at_ms, content, currency=currency_of(rule),
        group=min(rule.groups, default="guest"), segments=rule.any_of | rule.all_of, coupons=(rule.coupon,), shipping=MOST_PRICE,
    )  # fmt: skip


def prove(rule: Rule, others: RuleSet) -> None:
    """Run a rule alone on every probe, and once among the other live ones. Raises Unsound."""

    def report(broken: Rule, error: Exception) -> None:
        if broken.id == rule.id:
            raise Unsound from error

    alone = RuleSet.compile(0, [rule])
    among = Request(min(rule.websites, default="main"), NOW, (FILLED, PLAIN), currency_of(rule), coupons=(rule.coupon,))
    try:
        for asked in requests(rule):
            msgspec.json.encode([evaluate(alone, asked, report), messages(alone, asked, report)])
        msgspec.json.encode(evaluate(others, among, report))
    except Unsound:
        raise
    except Exception as error:
        raise Unsound from error
