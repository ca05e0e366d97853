"""Exact amounts: whole minor units, half up, and splits whose parts sum to the total."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def half_up(value: Fraction) -> int:
    """The nearest whole unit; a half goes up."""
    return int((value + Fraction(1, 2)).__floor__())


def split(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Parts of `total` in proportion to `weights`, carrying what rounding leaves, so that they sum to `total`.

    A weight of zero gets nothing. All weights zero: nothing is given. Rule: reference semantics of a fixed cart amount.
    """
    whole = sum(weights, Fraction(0))
    parts, carry = [], Fraction(0)
    for weight in weights:
        exact = Fraction(total) * weight / whole + carry if whole else Fraction(0)
        part = half_up(exact) if weight else 0
        carry = exact - part if weight else carry
        parts.append(part)
    return parts
