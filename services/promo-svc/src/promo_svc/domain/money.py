"""Exact amounts: whole minor units, half up, and splits whose parts sum to the total."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from math import lcm


def half_up(numerator: int, denominator: int) -> int:
    """The nearest whole unit of a fraction, in whole numbers only: they cost a fifth of fractions. A half goes up."""
    return (2 * numerator + denominator) // (2 * denominator)


def split(total: int, weights: Sequence[int | Fraction]) -> list[int]:
    """Parts of `total` in proportion to `weights`, carrying what rounding leaves, so that they sum to `total`.

    A weight of zero gets nothing. All weights zero: nothing is given. Rule: reference semantics of a fixed cart amount.
    Carrying is the same as rounding the sum of the shares so far, which needs whole numbers only.
    """
    scale = lcm(*(weight.denominator for weight in weights))
    sums = list(accumulate((weight.numerator * (scale // weight.denominator) for weight in weights), initial=0))
    whole = sums[-1]
    given = [(2 * total * so_far + whole) // (2 * whole) if whole else 0 for so_far in sums]
    return [after - before for before, after in pairwise(given)]
