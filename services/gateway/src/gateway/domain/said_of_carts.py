"""What promo-svc says of carts and coupons, as far as it is looked at here; see said.py. Amounts are minor units."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from gateway.domain.said import Whole


class Given(TypedDict):
    """What a rule takes off a line."""

    rule: str
    label: str
    amount: int


class Line(TypedDict):
    """A line with its discounts; `final` is what it costs."""

    id: str
    price: int
    quantity: int
    row_total: int
    discount: int
    final: int
    rules: list[Given]


class Applied(TypedDict):
    """A rule and what it gives: off the lines, and off the shipping."""

    rule: str
    label: str
    amount: int
    shipping: int


class Hint(TypedDict):
    """How much is missing in the cart for a rule to apply."""

    rule: str
    label: str
    missing: int


class Traced(TypedDict):
    """Why a rule does nothing, or None; for servers only."""

    rule: str
    version: int
    applied: bool
    reason: str | None


class Totals(TypedDict):
    """Of a cart, line by line, with what rules give and what is missing for them."""

    currency: str
    lines: list[Line]
    subtotal: int
    items_discount: int
    shipping: int
    shipping_discount: int
    discount: int
    grand_total: int
    applied: list[Applied]
    hints: list[Hint]


class Priced(Totals):
    """An evaluated cart."""

    version: Whole
    trace: list[Traced]


class Faults(TypedDict):
    """What is wrong with what was asked."""

    errors: NotRequired[list[dict[str, str]]]


class Redeemed(TypedDict):
    """One use of a coupon, held until `expires_at`, or used, or given back."""

    id: str
    rule: str
    status: str
    expires_at: int
