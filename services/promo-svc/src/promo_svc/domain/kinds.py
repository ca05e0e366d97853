"""Kinds of fields of a cart and of its lines: which operators and literals suit them, and how they compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from conditions.context import comparison as shape
from conditions.operators import NEGATIVE, NUMERIC, OPERATORS, matcher
from conditions.read import nearest
from conditions.tree import Fail

ONE_OF = ("eq", "ne", "in", "not_in")
PARTS = ("contains", "not_contains", "starts_with", "ends_with", "regex")
LISTED = ("in", "not_in", "includes", "not_includes")
MOST_TEXT, MOST_DIGITS = 500, 30


class Kind(NamedTuple):
    """What a field holds. `literals` are the JSON types it may be compared with; `exact`: as it stands, as a text."""

    name: str
    operators: Sequence[str]
    literals: tuple[type, ...]
    exact: bool = False
    path: bool = False


CODE = Kind("a code", (*ONE_OF, *PARTS), (str,), exact=True)
CATEGORY = Kind("a category path", (*ONE_OF, "starts_with"), (str,), exact=True, path=True)
NUMBER = Kind("a number", NUMERIC, (int, float))
OPEN = Kind("anything", tuple(op for op in OPERATORS if op not in ("exists", "missing")), (str, int, float, bool))


def comparison(raw: Mapping[str, Any], key: str, fail: Fail, *, kind: Kind) -> tuple[str, str, Any] | None:
    """The shape {key: name, op, value} for a field of a kind: checked (name, op, literal), or None after `fail`."""
    op, known = raw.get("op", "eq"), (*kind.operators, "exists", "missing")
    if not isinstance(op, str) or op not in known:
        word = op[:60] if isinstance(op, str) else "this"
        fail("/op", "unknown-operator", f"{word!r} does not compare {kind.name}{nearest(word, known)}")
        return None
    found = shape(raw, key, fail)
    several = isinstance(found[2], tuple)
    if several and op not in LISTED:
        fail("/value", "wrong-type", f"{op} compares with one value")
    for i, item in enumerate(found[2] if several else (found[2],)):
        wrong = "" if op in ("exists", "missing") else wrong_with(kind, item)
        if wrong:
            fail(f"/value/{i}" if several else "/value", "wrong-type", wrong)
    return found


def wrong_with(kind: Kind, item: Any) -> str:
    """Why one value cannot be compared with a field of the kind; empty when it can."""
    if type(item) not in kind.literals:
        return f"this field is {kind.name}, and so must the value be"
    if isinstance(item, str):
        return "" if 0 < len(item) <= MOST_TEXT else f"a text has 1 to {MOST_TEXT} characters"
    fits = isinstance(item, bool) or (isfinite(item) and abs(item) < 10**MOST_DIGITS)
    return "" if fits else f"a number has at most {MOST_DIGITS} digits"


def matcher_for(kind: Kind, op: str, literal: Any) -> Callable[[Any], bool]:
    """The comparison with all but the value given. A code is itself; a category path holds for what is below it."""
    positive, wanted = op not in NEGATIVE, frozenset(literal if isinstance(literal, tuple) else (literal,))
    if kind.exact and op in ONE_OF and not kind.path:
        return lambda value: (value in wanted) is positive
    if kind.path and op not in ("exists", "missing"):
        branches = tuple(f"{path}/" for path in wanted)
        return lambda value: any(path in wanted or path.startswith(branches) for path in value) is positive
    return matcher(op, literal)
