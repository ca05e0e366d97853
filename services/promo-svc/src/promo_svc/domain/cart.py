"""What is evaluated: a cart, and the facts that come with the request. Amounts in minor units of one currency."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import msgspec

from promo_svc.domain.money import half_up


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`price` per unit; `categories` are paths such as shoes/running; `discountable` False keeps every rule away."""

    id: str
    price: int
    quantity: int = 1
    sku: str = ""
    categories: tuple[str, ...] = ()
    attributes: dict[str, Any] = {}
    discountable: bool = True

    @property
    def row(self) -> int:
        """Price times quantity."""
        return self.price * self.quantity


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cart and who asks. `segments` are keys, `group` is guest for visitors, `at_ms` the instant that counts."""

    website: str
    at_ms: int
    lines: tuple[Line, ...]
    currency: str = "EUR"
    group: str = "guest"
    segments: frozenset[str] = frozenset()
    coupons: tuple[str, ...] = ()
    shipping: int = 0
    membership_version: int = 0


@dataclass(slots=True)
class Running:
    """The cart while rules are applied: what each line and the shipment have been given so far."""

    request: Request
    given: list[int] = field(default_factory=list)
    stopped: set[int] = field(default_factory=set)
    shipping_given: int = 0

    def left(self, index: int) -> int:
        """What is left of a line's row total."""
        return self.request.lines[index].row - self.given[index]

    def subtotal(self, accept: Any = None) -> int:
        """The running subtotal of the lines `accept` takes (None: all)."""
        lines = enumerate(self.request.lines)
        return sum(self.left(i) for i, line in lines if accept is None or accept(line))

    def give(self, index: int, amount: Fraction) -> int:
        """Discount a line, never below zero; answers what was given."""
        given = max(0, min(half_up(amount), self.left(index)))
        self.given[index] += given
        return given
