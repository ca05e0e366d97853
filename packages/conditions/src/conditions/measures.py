"""Numbers that leaves compare with a literal: read once for a whole set, however many leaves compare them.

A cut is a place on the number line where some answer changes: (v, 0) lies just below v, (v, 1) just above it. `cuts`
are always ascending.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import ceil, floor
from typing import Any

from conditions.operators import TESTS
from conditions.tree import LeafType
from conditions.values import Number

Cut = tuple[Number, int]
SIDES = {"eq": (0, 1), "ne": (0, 1), "lt": (0,), "gte": (0,), "lte": (1,), "gt": (1,)}


class Measure:
    """A number known of the facts, exact: whole or decimal, never binary. Measures with the same `key` are the same number.

    `parts`: names of the parts of the facts it is made from; None: it must be read every time.
    """

    key: str = ""
    temporal = False
    parts: Collection[str] | None = None

    def read(self, facts: Any, now: int) -> Number | None:
        """The number, or None where there is nothing to measure."""
        raise NotImplementedError

    def change(self, facts: Any, now: int, value: Number, cuts: Sequence[Cut]) -> int | None:
        """The first instant after `now` at which the number, `value` now, passes a cut if nothing else happens."""
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Measure) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, slots=True)
class Compared:
    """Parameters of a leaf that compares `measure` with `literal`; `if_missing` answers for no number."""

    measure: Measure
    op: str
    literal: Number
    body: Mapping[str, Any] = field(hash=False)
    if_missing: bool = False

    def cuts(self) -> tuple[Cut, ...]:
        """Where this answer changes."""
        return tuple((self.literal, side) for side in SIDES[self.op])


class MeasuredLeaf(LeafType):
    """A leaf whose `parse` answers Compared; its storage form is {key: body}."""

    temporal = True

    def json(self, params: Compared) -> dict[str, Any]:
        """See LeafType."""
        return {self.key: params.body}

    def seen(self, params: Compared, facts: Any, now: int) -> float | None:
        """See LeafType."""
        value = params.measure.read(facts, now)
        return float(value) if isinstance(value, Decimal) else value

    def test(self, params: Compared, facts: Any, now: int) -> bool:
        """See LeafType."""
        value = params.measure.read(facts, now)
        return params.if_missing if value is None else TESTS[params.op](value, params.literal)

    def change(self, params: Compared, facts: Any, now: int) -> int | None:
        """See LeafType."""
        value = params.measure.read(facts, now) if params.measure.temporal else None
        return None if value is None else params.measure.change(facts, now, value, params.cuts())


def passed(cuts: Sequence[Cut], value: Number) -> int:
    """How many cuts lie below a number."""
    return bisect_right(cuts, (value, 0.5))


def fall(cuts: Sequence[Cut], count: int) -> int:
    """By how much a count must fall to pass a cut; more than the count itself when it never can."""
    below = passed(cuts, count)
    if not below:
        return count + 1
    literal, side = cuts[below - 1]
    return count - (floor(literal) if side else ceil(literal) - 1)


def rise(cuts: Sequence[Cut], count: int) -> Iterable[int]:
    """The counts above `count` at which it has just passed a cut, ascending."""
    return (floor(literal) + 1 if side else ceil(literal) for literal, side in cuts[passed(cuts, count) :])


def first_passed(
    moments: Iterable[int], value: Number, cuts: Sequence[Cut], at: Callable[[int], Number | None]
) -> int | None:
    """The first of the moments (ascending) at which the number `at(moment)` lies between other cuts than `value`."""
    region = passed(cuts, value)
    return next((m for m in moments if (later := at(m)) is None or passed(cuts, later) != region), None)
