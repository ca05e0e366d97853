"""Kinds of fields whose values are known beforehand: which operators and literals suit them, and how they compare."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import Any, NamedTuple

from conditions.operators import NEGATIVE, NUMERIC, ORDER, PARTS, PRESENCE, Test, literal_of, matcher
from conditions.read import nearest, shown
from conditions.tree import Fail
from conditions.values import elements

ONE_OF = ("eq", "ne", "in", "not_in")
WORDS = (*ONE_OF, *ORDER, *PARTS, "not_contains", "regex", "includes", "not_includes")


FEW = 20  # paths that are compared faster one by one than by looking each branch of the value up


class Kind(NamedTuple):
    """What a field holds. `literals` are the JSON types it may be compared with; none given: any."""

    name: str
    operators: Sequence[str]
    literals: tuple[type, ...] = ()
    exact: bool = False
    path: bool = False


TEXT = Kind("a text", (*WORDS, "on_day", "not_on_day", *PRESENCE), (str,))
CODE = Kind("a code", (*WORDS, *PRESENCE), (str,), exact=True)
CATEGORY = Kind(
    "a category path", (*ONE_OF, "starts_with", "includes", "not_includes", *PRESENCE), (str,), exact=True, path=True
)
AMOUNT = Kind("a number", (*NUMERIC, "in", "not_in"), (int, float))  # one that is always there
NUMBER = AMOUNT._replace(operators=(*AMOUNT.operators, *PRESENCE))
FLAG = Kind("true or false", ("eq", "ne", *PRESENCE), (bool,))
OPEN = Kind("anything", (*WORDS, "on_day", "not_on_day", *PRESENCE))


def literal_for(kind: Kind, op: Any, raw: Any, fail: Fail) -> Any:
    """As `literal_of`, for a field of a kind: what the field cannot be asked is refused too."""
    if op not in kind.operators:
        fail("/op", "unknown-operator", f"{shown(op)} does not compare {kind.name}{nearest(op, kind.operators)}")
        return None
    literal = literal_of(op, raw, fail, exact=kind.exact)
    given = literal if isinstance(literal, tuple) else (literal,)
    if kind.literals and any(x is not None and type(x) not in kind.literals for x in given):
        fail("/value", "wrong-type", f"this field is {kind.name}, and so must the value be")
    return literal


def matcher_for(kind: Kind, op: str, literal: Any, zone: tzinfo = UTC) -> Test:
    """As `matcher`, for a field of a kind: a category path holds for what is below it."""
    if not kind.path or op in PRESENCE:
        return matcher(op, literal, exact=kind.exact, zone=zone)
    paths = frozenset(x.rstrip("/") for x in (literal if isinstance(literal, tuple) else (literal,)))
    one, positive = _below_few(paths) if len(paths) <= FEW else _below_many(paths), op not in NEGATIVE

    def below(value: Any) -> bool:
        if type(value) is str:
            return one(value) is positive
        return any(map(one, elements(value))) is positive

    return below


def _below_few(paths: frozenset[str]) -> Test:
    branches = tuple(f"{path}/" for path in paths)
    return lambda value: type(value) is str and (value in paths or value.startswith(branches))


def _below_many(paths: frozenset[str]) -> Test:
    deepest, longest = max(path.count("/") for path in paths) + 1, max(map(len, paths))

    def test(value: Any) -> bool:
        if type(value) is not str or value in paths:
            return type(value) is str
        end = -1
        for _ in range(deepest):  # its branches, from the root, as far as any of the paths goes
            end = value.find("/", end + 1, longest + 1)
            if end < 0:
                return False
            if value[:end] in paths:
                return True
        return False

    return test
