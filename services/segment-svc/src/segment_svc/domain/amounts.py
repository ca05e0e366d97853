"""Amounts of money in sums: whole ten-thousandths, so that no addition rounds."""

from __future__ import annotations

from typing import Any

from conditions.values import Number, ratio, scaled

SAFE = 2.0**38  # below it the ten-thousandths of an amount are whole numbers that a float holds


def units(amount: Any) -> int:
    """A decimal amount as a whole number of ten-thousandths; what is no number is 0."""
    if type(amount) is float and -SAFE < amount < SAFE:
        return round(amount * 10_000)
    return scaled(amount, 4)


def decimal(total: int, parts: int = 1) -> Number:
    """So many ten-thousandths, divided into parts, as the amount they are."""
    return ratio(total, 10_000 * parts)
