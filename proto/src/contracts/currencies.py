"""What an amount can be in: the codes of ISO 4217 that have a minor unit, as the package iso4217 keeps them.

Metals, testing codes and the one for no currency have none, and price nothing.
"""

from __future__ import annotations

from iso4217 import Currency

# Code -> how many of an amount's digits are minor ones.
EXPONENTS: dict[str, int] = {known.code: known.exponent for known in Currency if known.exponent is not None}
