"""Shapes many conditions share: counts, windows, product predicates; and when a count over a window changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conditions.operators import NUMERIC, OPERATORS, compare, instant, literal_of, number
from conditions.read import nearest
from conditions.tree import Fail

DURATION = re.compile(r"^P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?$")
DAY_MS = 86_400_000
UNITS_MS = (7 * DAY_MS, DAY_MS, 3_600_000, 60_000, 1000)


@dataclass(frozen=True, slots=True)
class Window:
    """`last` ms up to now, or the closed range [since, until] in epoch ms."""

    last: int | None = None
    since: int = 0
    until: int = 0

    def holds(self, at: int, now: int) -> bool:
        """Whether an instant is inside: (now-last, now], or [since, until]."""
        return now - self.last < at <= now if self.last is not None else self.since <= at <= self.until


@dataclass(frozen=True, slots=True)
class Where:
    """Predicates on the properties of one event or line: (field, operator, literal)."""

    every: bool
    tests: tuple[tuple[str, str, Any], ...]

    def holds(self, props: Mapping[str, Any]) -> bool:
        """Whether the properties satisfy all (or any) of the predicates."""
        results = (compare(op, lookup(props, name), literal) for name, op, literal in self.tests)
        return all(results) if self.every else any(results)


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


def amount(raw: Any, pointer: str, fail: Fail) -> tuple[str, float]:
    """A numeric comparison {op, value}: the operator and the number."""
    if not isinstance(raw, Mapping):
        fail(pointer, "wrong-type", "a comparison has op and value")
        return "gte", 0.0
    op, value = raw.get("op"), number(raw.get("value"))
    if op not in NUMERIC:
        fail(f"{pointer}/op", "unknown-operator", f"{op!r} does not compare numbers{nearest(str(op), NUMERIC)}")
    if value is None:
        fail(f"{pointer}/value", "wrong-type", "a number is needed")
    return str(op), value or 0.0


def only(raw: Mapping[str, Any], known: Sequence[str], pointer: str, fail: Fail) -> None:
    """Refuse fields nobody reads."""
    for field in raw:
        if field not in known:
            fail(f"{pointer}/{field}", "unknown-field", f"{field!r} does not belong here{nearest(field, known)}")


def expiries(instants: Iterable[int], span: Window | None, now: int) -> list[int]:
    """When each event of a rolling window leaves it, soonest first."""
    if span is None or span.last is None:
        return []
    return sorted(at + span.last for at in instants if now - span.last < at <= now)


def first_flip(moments: Iterable[int], current: bool, at: Callable[[int], bool]) -> int | None:
    """The first of the moments (ascending) at which the answer differs from the current one."""
    return next((moment for moment in moments if at(moment) != current), None)
