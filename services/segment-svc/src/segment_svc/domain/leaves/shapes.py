"""Shapes many conditions share: comparisons with a number, windows, words."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from conditions.operators import NUMERIC
from conditions.read import nearest, only, shown
from conditions.tree import Fail
from conditions.values import MOST_DIGITS, Number, day, instant, number_said

N = "([0-9]{1,9})"
DURATION = re.compile(f"P(?:{N}W)?(?:{N}D)?(?:T(?:{N}H)?(?:{N}M)?(?:{N}S)?)?")
FAR = 2**62
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


def duration(raw: Any, pointer: str, fail: Fail) -> int:
    """Milliseconds of an ISO 8601 duration of weeks, days and less; months have no fixed length and are refused."""
    match = DURATION.fullmatch(raw) if isinstance(raw, str) and raw[-1:] not in ("P", "T") else None
    ms = sum(int(n or 0) * unit for n, unit in zip(match.groups(), UNITS_MS, strict=True)) if match else 0
    if not 0 < ms <= 3660 * DAY_MS:
        fail(pointer, "bad-duration", "a duration is like P30D or PT12H, up to ten years")
    return ms


def window(raw: Any, zone: ZoneInfo, pointer: str, fail: Fail) -> Window | None:
    """{"last": duration} or {"from": date or instant, "to": ...}; None for no window.

    Days are days in the zone; the last one is inside to its end.
    """
    if raw is None:
        return None
    if isinstance(raw, Mapping) and set(raw) == {"last"}:
        return Window(last=duration(raw["last"], f"{pointer}/last", fail))
    if isinstance(raw, Mapping) and set(raw) <= {"from", "to"} and raw:
        since = instant(raw["from"], zone) if "from" in raw else 0
        until = _end(raw["to"], zone) if "to" in raw else FAR
        if since is not None and until is not None and since <= until:
            return Window(since=since, until=until)
    fail(pointer, "bad-window", 'a window is {"last": "P30D"} or {"from": "2026-11-01", "to": "2026-11-30"}')
    return None


def _end(raw: Any, zone: ZoneInfo) -> int | None:
    """An instant, or the last millisecond of a date."""
    last = day(raw, zone)
    if last is None or len(raw) > len("2026-11-30"):
        return instant(raw, zone)
    return midnight(last + timedelta(days=1), zone) - 1


def midnight(on: date, zone: ZoneInfo) -> int:
    """When a day begins, in epoch ms; where the clock skips midnight, with the first instant there is."""
    return round(datetime(on.year, on.month, on.day, tzinfo=zone).timestamp() * 1000)


def under(prefix: str, fail: Fail) -> Fail:
    """The same, for pointers relative to `prefix`."""
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
    found = number_said(value)
    if found is None:
        fail(f"{pointer}/value", "wrong-type", f"a number of at most {MOST_DIGITS} digits is needed")
    return str(op), found or 0


def body_of(raw: Mapping[str, Any], key: str, known: Sequence[str], fail: Fail) -> Mapping[str, Any] | None:
    """What a condition {key: body} says, or None after `fail`."""
    body = raw[key]
    only(raw, (key,), fail)
    if not isinstance(body, Mapping):
        fail(f"/{key}", "wrong-type", f"{key} is an object")
        return None
    only(body, known, fail, f"/{key}")
    return body


def choice(body: Mapping[str, Any], name: str, known: Sequence[str], pointer: str, fail: Fail) -> str:
    """A field that is one of the known words; an empty text after `fail`."""
    given = body.get(name)
    if isinstance(given, str) and given in known:
        return given
    words = ", ".join(known)
    fail(f"{pointer}/{name}", "unknown-field", f"{shown(given)} is not one of {words}{nearest(given, known)}")
    return ""
