"""Filters: predicates on the properties of one event, order or line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from conditions.kinds import Kind, literal_for, matcher_for
from conditions.operators import NEGATIVE, Test
from conditions.tree import Fail
from conditions.values import elements

from segment_svc.domain.event_fields import Fields, field_kind
from segment_svc.domain.leaves.shapes import under

MOST_PREDICATES = 50
Holds = Callable[[Mapping[str, Any]], bool]


class Predicate(NamedTuple):
    """A field by dotted path, what it holds, and the comparison."""

    path: str
    kind: Kind
    op: str
    literal: Any

    @property
    def negative(self) -> bool:
        """Whether it is true of what is missing."""
        return self.op in NEGATIVE or self.op == "missing"


class Where:
    """Checked predicates: all (`every`) or any of them must hold; see `holds`.

    `needle`: bytes that are in the stored form of whatever satisfies it, so that the rest need not be decoded.
    """

    __slots__ = ("every", "holds", "needle", "tests")

    def __init__(self, every: bool, tests: tuple[Predicate, ...], *, stored: bool = False) -> None:
        """`stored`: the fields are of a message, so that a code is stored as the text it is."""
        self.every, self.tests = every, tests
        self.holds: Holds = _every(tests) if every else _any([_every([test]) for test in tests])
        codes = (t.literal.rstrip("/") if t.kind.path else t.literal for t in tests if t.op == "eq" and t.kind.exact)
        self.needle: bytes = next(codes, "").encode() if every and stored else b""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Where) and (self.every, self.tests) == (other.every, other.tests)

    def __hash__(self) -> int:
        return hash((self.every, self.tests))


def _any(parts: Sequence[Holds]) -> Holds:
    return lambda props: any(holds(props) for holds in parts)


def _every(tests: Sequence[Predicate]) -> Holds:
    """Fields of one name looked into together, so that several predicates on lines hold on one and the same line."""
    plain: list[tuple[str, Test]] = []
    heads: dict[str, list[Predicate]] = {}
    for test in tests:
        head, _, rest = test.path.partition(".")
        if rest:
            heads.setdefault(head, []).append(test._replace(path=rest))
        else:
            plain.append((test.path, matcher_for(test.kind, test.op, test.literal)))
    parts = [_inside(head, inner) for head, inner in heads.items()]

    def holds(props: Mapping[str, Any]) -> bool:
        for name, matches in plain:
            if not matches(props.get(name)):
                return False
        return all(part(props) for part in parts)

    return holds


def _inside(head: str, tests: Sequence[Predicate]) -> Holds:
    """Predicates on what is in the field `head`. Of a list one element satisfies all of them; if all are negative, each does."""
    inner, negative, dotted = _every(tests), all(t.negative for t in tests), f"{head}."

    def one(value: Any) -> bool:
        return inner(value if isinstance(value, Mapping) else {})

    def holds(props: Mapping[str, Any]) -> bool:
        value = props.get(head)
        if value is None:
            return inner({name.removeprefix(dotted): v for name, v in props.items() if name.startswith(dotted)})
        if isinstance(value, list):
            return all(map(one, elements(value))) if negative else any(map(one, elements(value)))
        return one(value)

    return holds


def written(raw: Any) -> tuple[str, Any]:
    """How a filter stands there: all, any or neither, and its predicates, which are a list if it is right."""
    if not isinstance(raw, Mapping):
        return "", raw
    group = next((name for name in ("all", "any") if set(raw) == {name}), "")
    return group, raw[group] if group else [raw]


def where(raw: Any, fields: Fields, pointer: str, fail: Fail) -> Where | None:
    """One predicate {field, op, value}, a list of them, or {"all": [...]} / {"any": [...]}; None for no filter."""
    if raw is None:
        return None
    group, items = written(raw)
    every, at = group != "any", f"{pointer}/{group}" if group else pointer
    if not isinstance(items, list) or not 0 < len(items) <= MOST_PREDICATES:
        fail(pointer, "bad-filter", f"a filter is one predicate or a list of 1 to {MOST_PREDICATES}")
        return None
    tests = [_predicate(item, fields, at if items == [raw] else f"{at}/{i}", fail) for i, item in enumerate(items)]
    found = tuple(test for test in tests if test is not None)
    return Where(every, found, stored=fields is not None) if len(found) == len(tests) else None


def _predicate(item: Any, fields: Fields, at: str, fail: Fail) -> Predicate | None:
    if not isinstance(item, Mapping) or "field" not in item or set(item) - {"field", "op", "value"}:
        fail(at, "bad-filter", "a predicate has field, op and value")
        return None
    kind = field_kind(fields, item["field"], f"{at}/field", fail)
    if kind is None:
        return None
    faults: list[str] = []

    def refuse(pointer: str, code: str, detail: str) -> None:
        faults.append(code)
        under(at, fail)(pointer, code, detail)

    op = item.get("op", "eq")
    literal = literal_for(kind, op, item.get("value"), refuse)
    return None if faults else Predicate(item["field"], kind, op, literal)
