"""Shapes many conditions share: comparisons with a number, windows, product predicates."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conditions.operators import NUMERIC, OPERATORS, literal_of, matcher
from conditions.read import nearest, shown
from conditions.tree import Fail
from conditions.values import MOST_DIGITS, Number, instant, number

DURATION = re.compile(r"^P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?$")
DAY_MS = 86_400_000
UNITS_MS = (7 * DAY_MS, DAY_MS, 3_600_000, 60_000, 1000)


@dataclass(frozen=True, slots=True)
class Window:
    """`last` ms up to now, or the closed range [since, until] in epoch ms."""

    last: int | None = None
    since: int = 0
    until: int = 0

    def part(self, instants: Sequence[int], now: int) -> tuple[int, int]:
        """Which of the ascending instants are inside, as a slice: (now-last, now], or [since, until]."""
        if self.last is None:
            return bisect_left(instants, self.since), bisect_right(instants, self.until)
        return bisect_right(instants, now - self.last), bisect_right(instants, now)


class Where:
    """Predicates on the properties of one event or line: (field, operator, literal).

    `needle`: bytes that are in the stored form of whatever satisfies it, so that the rest need not be decoded.
    """

    __slots__ = ("_matchers", "every", "needle", "tests")

    def __init__(self, every: bool, tests: tuple[tuple[str, str, Any], ...]) -> None:
        self.every, self.tests = every, tests
        self.needle = b""
        self._matchers = tuple((name, matcher(op, literal)) for name, op, literal in tests)

    def holds(self, props: Mapping[str, Any]) -> bool:
        """Whether the properties satisfy all (or any) of the predicates."""
        every = self.every
        for name, matches in self._matchers:
            if matches(lookup(props, name)) is not every:
                return not every
        return every


def lookup(props: Mapping[str, Any], path: str) -> Any:
    """A property by name, or by dotted path into nested objects; of a list of objects, all their values."""
    if path in props:
        return props[path]
    head, _, rest = path.partition(".")
    inner = props.get(head)
    if rest and isinstance(inner, list):
        return [lookup(item, rest) for item in inner if isinstance(item, Mapping)]
    return lookup(inner, rest) if rest and isinstance(inner, Mapping) else None


def duration(raw: Any, pointer: str, fail: Fail) -> int:
    """Milliseconds of an ISO 8601 duration of weeks, days and less; months have no fixed length and are refused."""
    match = DURATION.match(raw) if isinstance(raw, str) and raw not in ("P", "PT") else None
    ms = sum(int(n or 0) * unit for n, unit in zip(match.groups(), UNITS_MS, strict=True)) if match else 0
    if not 0 < ms <= 3660 * DAY_MS:
        fail(pointer, "bad-duration", "a duration is like P30D or PT12H, up to ten years")
    return ms


def window(raw: Any, pointer: str, fail: Fail) -> Window | None:
    """{"last": duration} or {"from": instant, "to": instant}; None for no window."""
    if raw is None:
        return None
    if isinstance(raw, Mapping) and set(raw) == {"last"}:
        return Window(last=duration(raw["last"], f"{pointer}/last", fail))
    if isinstance(raw, Mapping) and set(raw) <= {"from", "to"} and raw:
        since, until = (instant(raw[k]) if k in raw else edge for k, edge in (("from", 0), ("to", 2**62)))
        if since is not None and until is not None and since <= until:
            return Window(since=since, until=until)
    fail(pointer, "bad-window", 'a window is {"last": "P30D"} or {"from": ..., "to": ...}')
    return None


def where(raw: Any, pointer: str, fail: Fail) -> Where | None:
    """One predicate {field, op, value}, a list of them, or {"all": [...]} / {"any": [...]}; None for no filter."""
    if raw is None:
        return None
    every, items = True, raw
    if isinstance(raw, Mapping):
        items = raw.get("all", raw.get("any", [raw]))
        every = "any" not in raw
    if not isinstance(items, list) or not items or len(items) > 50:
        fail(pointer, "bad-filter", "a filter is one predicate or a list of them")
        return None
    tests = []
    for i, item in enumerate(items):
        at = f"{pointer}/{i}"
        if (
            not isinstance(item, Mapping)
            or not isinstance(item.get("field"), str)
            or set(item) - {"field", "op", "value"}
        ):
            fail(at, "bad-filter", "a predicate has field, op and value")
            continue
        op = item.get("op", "eq")
        if op not in OPERATORS:
            fail(f"{at}/op", "unknown-operator", f"{op!r} is not an operator{nearest(str(op), OPERATORS)}")
            continue
        tests.append((item["field"], op, literal_of(op, item.get("value"), _under(at, fail))))
    return Where(every, tuple(tests))


def _under(prefix: str, fail: Fail) -> Fail:
    return lambda pointer, code, detail: fail(prefix + pointer, code, detail)


def amount(raw: Any, pointer: str, fail: Fail) -> tuple[str, Number]:
    """A numeric comparison {op, value}: the operator and the number."""
    if not isinstance(raw, Mapping):
        fail(pointer, "wrong-type", "a comparison has op and value")
        return "gte", 0
    op, value = raw.get("op"), raw.get("value")
    if op not in NUMERIC:
        fail(f"{pointer}/op", "unknown-operator", f"{shown(op)} does not compare numbers{nearest(op, NUMERIC)}")
        return "gte", 0
    found = number(value) if type(value) in (int, float) else None
    if found is None:
        fail(f"{pointer}/value", "wrong-type", f"a number of at most {MOST_DIGITS} digits is needed")
    return str(op), found or 0


def only(raw: Mapping[str, Any], known: Sequence[str], pointer: str, fail: Fail) -> None:
    """Refuse fields nobody reads."""
    for field in raw:
        if field not in known:
            fail(f"{pointer}/{field}", "unknown-field", f"{field!r} does not belong here{nearest(field, known)}")
