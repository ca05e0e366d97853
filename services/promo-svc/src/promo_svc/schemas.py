"""Request bodies of the API. Unknown fields and other types are refused, and everything is bounded."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from chassis.schemas import MOST_KILLED_ASKED, Instant, Version, Website, Zone
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from promo_svc.domain.cart import MOST_GROUP
from promo_svc.wire import CURRENCIES

MOST_AMOUNT = 10**12
DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
EXACT_DIGITS, MOST_DIGITS = 15, 30


def _exact(value: Any) -> Decimal:
    """A decimal as it was written: a text, or a JSON number short enough that nothing of it was lost in reading."""
    written = repr(value) if type(value) in (int, float) else value if isinstance(value, str) else ""
    most = EXACT_DIGITS if isinstance(value, float) else MOST_DIGITS
    if len(written) > most + 2 or not DECIMAL.fullmatch(written) or sum(c.isdigit() for c in written) > most:
        raise ValueError(
            f"a number, or a text, of up to {MOST_DIGITS} digits is needed, without an exponent; "
            f"with more than {EXACT_DIGITS} digits send it as a text"
        )
    return Decimal(written)


def _known(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("the ISO 4217 code of a currency is needed")
    return code


Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Keys = Annotated[list[Key], Field(max_length=200)]
Group = Annotated[str, Field(min_length=1, max_length=100)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$"), AfterValidator(_known)]
Text = Annotated[str, Field(max_length=200)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Exact = Annotated[
    Decimal,
    BeforeValidator(_exact),
    PlainSerializer(lambda value: format(value, "f"), return_type=str, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": DECIMAL.pattern}]}),
]


class Strict(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Segments(Strict):
    """Which segments a visitor must be in (any of, all of) or must not be in."""

    any_of: Keys = []
    all_of: Keys = []
    none_of: Keys = []


class Action(Strict):
    """What a rule gives: a percentage, minor units off each unit, minor units off the cart, or the shipping.

    `max_quantity`: most units of a line it touches. `step`: only whole multiples of it. 0 is without.
    """

    type: Literal["percent", "fixed_unit", "fixed_cart", "free_shipping"]
    value: Annotated[Exact, Field(ge=0, le=MOST_AMOUNT)] = Decimal(0)
    max_quantity: Count = 0
    step: Count = 0

    @field_validator("value")
    @classmethod
    def _suits(cls, value: Decimal, info: ValidationInfo) -> Decimal:
        kind = info.data.get("type")
        if kind == "percent" and value > 100:
            raise ValueError("a percentage is at most 100")
        if kind in ("fixed_unit", "fixed_cart") and value != value.to_integral_value():
            raise ValueError("an amount is whole minor units")
        if kind == "free_shipping" and value:
            raise ValueError("free shipping has no value")
        return value

    @field_validator("max_quantity", "step")
    @classmethod
    def _counts(cls, value: int, info: ValidationInfo) -> int:
        kind = info.data.get("type")
        if value and (kind == "free_shipping" or (kind == "fixed_cart" and info.field_name == "step")):
            raise ValueError(f"{kind} has no {info.field_name}")
        return value


class CartRule(Strict):
    """A cart price rule. Instants are epoch ms; a rule without groups is for nobody unless `all_groups` is set.

    `currency`: of its amounts, and of the carts it is for; a rule that says no amount may be for all (null).
    """

    name: Annotated[str, Field(min_length=1, max_length=120)]
    label: Annotated[str, Field(max_length=200)] = ""
    status: Literal["draft", "live", "disabled"] = "draft"
    websites: Annotated[list[Website], Field(max_length=200)] = []
    groups: Annotated[list[Group], Field(max_length=200)] = []
    all_groups: bool = False
    segments: Segments = Segments()
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    zone: Zone = "UTC"
    currency: Currency | None = None
    coupon: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""
    uses_total: Count = 0
    uses_per_customer: Count = 0
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    stop: bool = False
    condition: dict[str, Any] | None = None
    filter: dict[str, Any] | None = None
    action: Action

    @field_validator("ends_at")
    @classmethod
    def _window(cls, value: int | None, info: ValidationInfo) -> int | None:
        starts_at = info.data.get("starts_at")
        if value is not None and starts_at is not None and starts_at >= value:
            raise ValueError("a rule ends after it starts")
        return value


class NewCartRule(CartRule):
    """A rule with the key it is to have for life."""

    key: Key


class MessagesRequest(Strict):
    """Whose promotion messages to give, by which version of the rules."""

    website: Text
    segments: list[Text] = []
    unknown: list[Text] = []
    group: Annotated[str, Field(max_length=MOST_GROUP)] = "guest"
    at_ms: Annotated[int, Field(ge=0, le=253_402_300_799_999)]
    version: Version = None
    killed: Annotated[list[Text], Field(max_length=MOST_KILLED_ASKED)] = []


class Redemption(MessagesRequest):
    """A wish to use a coupon, and whose; `customer` is an opaque id, or a keyed hash of a guest's e-mail."""

    coupon: Text
    customer: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]


class ManyMessages(Strict):
    """Many at once: each is a MessagesRequest, judged alone."""

    asks: Annotated[list[Any], Field(max_length=100)]
