"""Comparing a value with a literal of a rule. The literal decides how: a number as numbers, a text as texts, a flag as flags.

Missing is null, an empty text or an empty list; a negative operator is true of it. Of a list one element must fit, and
for a negative operator none. Texts are the same in any case and Unicode form; a code (`exact`) is compared as it stands.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from datetime import UTC, tzinfo
from typing import Any

from conditions.patterns import BadPattern, pattern
from conditions.tree import Fail
from conditions.values import (
    MOST_DIGITS,
    MOST_TEXT,
    SAFE,
    day,
    elements,
    fold,
    instant,
    missing,
    number,
    number_said,
    storable,
    text,
    written,
)

MOST_LITERAL, MOST_LITERALS = 500, 1_000  # a literal is so short that no text that had to be cut folds to it
Test = Callable[[Any], bool]

PRESENCE = ("exists", "missing")
NEGATIVE = {"ne": "eq", "not_in": "in", "not_contains": "contains", "not_includes": "includes", "not_on_day": "on_day"}
TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge,
}  # fmt: skip
NUMERIC = tuple(TESTS)
ORDER = ("lt", "lte", "gt", "gte")
DAYS = ("on_day", "not_on_day")
PARTS = ("contains", "starts_with", "ends_with")
POSITIVE = ("eq", *ORDER, "in", "includes", *PARTS, "regex", "on_day")
OPERATORS = (*POSITIVE, *NEGATIVE, "exists", "missing")


def compare(op: str, value: Any, literal: Any, *, exact: bool = False, zone: tzinfo = UTC) -> bool:
    """The answer of an operator of OPERATORS for any JSON value. `literal` is one that `literal_of` gave."""
    return matcher(op, literal, exact=exact, zone=zone)(value)


def matcher(op: str, literal: Any, *, exact: bool = False, zone: tzinfo = UTC) -> Test:
    """`compare` with all but the value given: what does not depend on the value is decided once."""
    if op == "exists":
        return lambda value: not missing(value)
    if op == "missing":
        return missing
    one, positive = _test(NEGATIVE.get(op, op), literal, exact, zone), op not in NEGATIVE

    def matches(value: Any) -> bool:
        if type(value) is str:
            return (value != "" and one(value)) is positive
        if value is None:
            return not positive
        return (any(map(one, elements(value))) if isinstance(value, list | tuple) else one(value)) is positive

    if op in TESTS and type(literal) in (int, float):
        return _quick_number(TESTS[op], literal, matches)
    literals = literal if isinstance(literal, tuple) else (literal,)
    if op in ("eq", "ne", "in", "not_in") and all(type(x) is str for x in literals):
        return _quick_text(literals, exact, positive, matches)
    return matches


def _quick_number(test: Callable[[Any, Any], bool], literal: float, matches: Test) -> Test:
    """For what most values of a number are; beyond 2**53 a float is not what it was written as."""

    def quick(value: Any) -> bool:
        if (type(value) is float or type(value) is int) and -SAFE < value < SAFE:
            return test(value, literal)
        return matches(value)

    return quick


def _quick_text(literals: Sequence[str], exact: bool, positive: bool, matches: Test) -> Test:
    known = frozenset(literals)
    folded = frozenset(() if exact else map(fold, known))

    def code(value: Any) -> bool:
        return (value in known) is positive if type(value) is str else matches(value)

    def words(value: Any) -> bool:
        if type(value) is not str:
            return matches(value)
        return (value in known or fold(value) in folded) is positive

    return code if exact else words


def _test(op: str, literal: Any, exact: bool, zone: tzinfo) -> Test:
    """What a positive operator asks of one value that is not missing."""
    if op in ("eq", "in", "includes"):
        return _one_of(literal if isinstance(literal, tuple) else (literal,), exact)
    if op in ORDER:
        return _ordered(TESTS[op], literal, exact, zone)
    if op == "on_day":
        wanted = day(literal, zone)
        return lambda value: wanted is not None and day(value, zone) == wanted
    if op == "regex":
        found = pattern(literal, exact)
        return lambda value: (as_text := text(value)) is not None and found(as_text)
    return _part(op, literal, exact)


def _one_of(literals: Sequence[Any], exact: bool) -> Test:
    as_given = frozenset(x for x in literals if type(x) is str)
    numbers = frozenset(n for x in literals if type(x) is not str and (n := number(x)) is not None)
    flags = frozenset(x for x in literals if type(x) is bool)
    texts = as_given if exact else frozenset(map(fold, as_given))

    def test(value: Any) -> bool:
        if type(value) is str:
            if exact or value in as_given:
                return value in as_given
            if texts and fold(value) in texts:
                return True
            return bool(numbers) and number(value) in numbers
        if type(value) is bool:
            return value in flags
        found = number(value)
        return found is not None and (found in numbers or (bool(texts) and written(found) in texts))

    return test


def _ordered(test: Callable[[Any, Any], bool], literal: Any, exact: bool, zone: tzinfo) -> Test:
    """Order: of numbers for a number; for a text of numbers when both are, else of instants when both are, else of texts."""
    as_number = None if exact else number(literal)
    if type(literal) is not str:
        return lambda value: (found := number(value)) is not None and test(found, as_number)
    as_instant, as_text = None if exact else instant(literal, zone), literal if exact else fold(literal)

    def ordered(value: Any) -> bool:
        if as_number is not None and (found := number(value)) is not None:
            return test(found, as_number)
        if as_instant is not None and (at := instant(value, zone)) is not None:
            return test(at, as_instant)
        given = text(value)
        return given is not None and test(given if exact else fold(given), as_text)

    return ordered


def _part(op: str, literal: str, exact: bool) -> Test:
    wanted = literal if exact else fold(literal)

    def test(value: Any) -> bool:
        found = text(value)
        if found is None:
            return False
        looked_at = found[-MOST_TEXT:] if op == "ends_with" else found[:MOST_TEXT]
        if not exact:
            looked_at = fold(looked_at)
        if op == "contains":
            return wanted in looked_at
        return looked_at.startswith(wanted) if op == "starts_with" else looked_at.endswith(wanted)

    return test


def literal_of(op: str, raw: Any, fail: Fail, *, exact: bool = False) -> Any:
    """The literal an operator can work with, or None after `fail`: a number, a text, a flag, a tuple of them, or none."""
    if op in PRESENCE:
        if raw is not None:
            fail("/value", "unknown-field", f"{op} has no value")
        return None
    if op in ("in", "not_in") or (op in ("includes", "not_includes") and isinstance(raw, list)):
        if not isinstance(raw, list) or not 0 < len(raw) <= MOST_LITERALS:
            fail("/value", "wrong-type", f"{op} needs a list of 1 to {MOST_LITERALS} values")
            return None
        return tuple(_single(op, item, f"/value/{i}", fail, exact) for i, item in enumerate(raw))
    if op == "regex":
        return _pattern(raw, fail, exact)
    return _single(op, raw, "/value", fail, exact)


def _single(op: str, raw: Any, at: str, fail: Fail, exact: bool) -> Any:
    """One value: text for what looks into texts, a date for days, no flag where order counts."""
    wrong = _text_fault(op, raw) if isinstance(raw, str) else _other_fault(op, raw, exact)
    if wrong:
        fail(at, "wrong-type", wrong)
        return None
    return raw


def _text_fault(op: str, raw: str) -> str:
    if not 0 < len(raw) <= MOST_LITERAL:
        return f"a text has 1 to {MOST_LITERAL} characters; exists and missing ask whether there is any"
    if not storable(raw):
        return "a text has no NUL and no half of a character"
    if op in DAYS and day(raw) is None:
        return 'a day is like "2026-11-24"'
    return ""


def _other_fault(op: str, raw: Any, exact: bool) -> str:
    if op in (*DAYS, *PARTS, "not_contains"):
        return f"{op} needs a text"
    if isinstance(raw, bool):
        return f"{op} does not compare true and false here" if exact or op in ORDER else ""
    if not isinstance(raw, int | float):
        return f"{op} compares with a text, a number, true or false"
    if exact:
        return "a code is a text: put it in quotes, so that no leading zero is lost"
    many = f"a number has at most {MOST_DIGITS} digits, a very large one neither a fraction nor an exponent"
    return many if number_said(raw) is None else ""


def _pattern(raw: Any, fail: Fail, exact: bool) -> str | None:
    if not isinstance(raw, str):
        fail("/value", "bad-pattern", "a pattern is a text")
        return None
    try:
        pattern(raw, exact)
    except BadPattern as error:
        fail("/value", "bad-pattern", f"this pattern cannot be used: {error}")
        return None
    return raw
