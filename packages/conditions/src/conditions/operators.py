"""Comparing a value with a literal. Missing is None or an empty string; a negative operator is true of it."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from conditions.tree import Fail

MOST_PATTERN = 200
NESTED_REPEAT = re.compile(r"\([^)]*[*+][^)]*\)[*+{]")


def number(value: Any) -> float | None:
    """The value as a number when it reads as a finite one."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return value
    try:
        found = float(value) if isinstance(value, str) and value.strip() and not value.strip().isalpha() else None
    except ValueError:
        return None
    return found if found is None or isfinite(found) else None


def missing(value: Any) -> bool:
    """Whether there is nothing to compare."""
    return value is None or value == ""


def instant(value: Any) -> int | None:
    """Epoch milliseconds of an ISO 8601 date or time; a date is its midnight, UTC unless it says otherwise."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def same(a: Any, b: Any) -> bool:
    """Equality: as numbers when both read as numbers."""
    left, right = number(a), number(b)
    return left == right if left is not None and right is not None else a == b


def _order(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(value: Any, literal: Any) -> bool:
        left, right = number(value), number(literal)
        if left is None or right is None:
            left, right = instant(value), instant(literal)
        return left is not None and right is not None and test(left, right)

    return compare


def _member(value: Any, literal: Any) -> bool:
    return any(same(value, item) for item in literal)


def _includes(value: Any, literal: Any) -> bool:
    items = value if isinstance(value, list | tuple) else [value]
    wanted = literal if isinstance(literal, tuple) else (literal,)
    return any(same(item, want) for item in items for want in wanted)


def _contains(value: Any, literal: Any) -> bool:
    return _includes(value, literal) if isinstance(value, list | tuple) else str(literal) in str(value)


def _day(value: Any) -> str | None:
    moment = instant(value)
    return None if moment is None else datetime.fromtimestamp(moment / 1000, UTC).date().isoformat()


POSITIVE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": same,
    "lt": _order(operator.lt),
    "lte": _order(operator.le),
    "gt": _order(operator.gt),
    "gte": _order(operator.ge),
    "in": _member,
    "contains": _contains,
    "includes": _includes,
    "starts_with": lambda value, literal: str(value).startswith(str(literal)),
    "ends_with": lambda value, literal: str(value).endswith(str(literal)),
    "regex": lambda value, literal: re.search(literal, str(value)[:1000]) is not None,
    "on_day": lambda value, literal: _day(value) is not None and _day(value) == _day(literal),
}
NEGATIVE = {"ne": "eq", "not_in": "in", "not_contains": "contains", "not_includes": "includes", "not_on_day": "on_day"}
TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge,
}  # fmt: skip
NUMERIC = tuple(TESTS)
OPERATORS = (*POSITIVE, *NEGATIVE, "exists", "missing")


def compare(op: str, value: Any, literal: Any) -> bool:
    """The answer of an operator of OPERATORS."""
    if op == "exists":
        return not missing(value)
    if op == "missing":
        return missing(value)
    if op in NEGATIVE:
        return missing(value) or not POSITIVE[NEGATIVE[op]](value, literal)
    return not missing(value) and POSITIVE[op](value, literal)


def matcher(op: str, literal: Any) -> Callable[[Any], bool]:
    """`compare` with the operator and the literal given: what depends on them alone is decided once."""
    positive = NEGATIVE.get(op, op)
    if positive == "eq" and literal and isinstance(literal, str) and number(literal) is None:
        return (lambda value: value == literal) if op == "eq" else (lambda value: value != literal)
    if positive == "in" and all(isinstance(item, str) and item and number(item) is None for item in literal):
        known, inside = frozenset(literal), op == "in"
        return lambda value: (isinstance(value, str) and value in known) is inside
    if op in NUMERIC and type(literal) in (int, float):
        test = TESTS[op]
        return lambda value: (
            test(value, literal) if type(value) is int or type(value) is float else compare(op, value, literal)
        )
    return lambda value: compare(op, value, literal)


def literal_of(op: str, raw: Any, fail: Fail) -> Any:
    """The literal an operator can work with: lists become tuples; a pattern must be short, valid and without nested repeats."""
    if op in ("exists", "missing"):
        return None
    if op in ("in", "not_in"):
        if not isinstance(raw, list) or not raw or len(raw) > 1000:
            fail("/value", "wrong-type", f"{op} needs a list of 1 to 1000 values")
            return ()
        return tuple(raw)
    if op == "regex":
        return _pattern(raw, fail)
    if isinstance(raw, list):
        return tuple(raw)
    if raw is None or isinstance(raw, dict):
        fail("/value", "wrong-type", f"{op} needs a value")
    return raw


def _pattern(raw: Any, fail: Fail) -> str:
    if not isinstance(raw, str) or len(raw) > MOST_PATTERN or NESTED_REPEAT.search(raw):
        fail("/value", "unsafe-pattern", f"a pattern has at most {MOST_PATTERN} characters and no repeat in a repeat")
        return ""
    try:
        re.compile(raw)
    except re.error as error:
        fail("/value", "bad-pattern", f"not a regular expression: {error}")
    return raw
