"""Request bodies of the API. Unknown fields are refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class Strict(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid")


class Segments(Strict):
    """Which segments a visitor must be in (any of, all of) or must not be in."""

    any_of: list[Key] = []
    all_of: list[Key] = []
    none_of: list[Key] = []


class Action(Strict):
    """What a rule gives: a percentage, minor units off each unit, minor units off the cart, or the shipping."""

    type: Literal["percent", "fixed_unit", "fixed_cart", "free_shipping"]
    value: Annotated[Decimal, Field(ge=0, le=1_000_000_000)] = Decimal(0)
    max_quantity: Annotated[int, Field(ge=0)] = 0
    step: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _sane(self) -> Action:
        if self.type == "percent" and self.value > 100:
            raise ValueError("a percentage is at most 100")
        if self.type in ("fixed_unit", "fixed_cart") and self.value != self.value.to_integral_value():
            raise ValueError("an amount is whole minor units")
        return self


class CartRule(Strict):
    """A cart price rule. Instants are epoch ms; a rule without groups is for nobody unless `all_groups` is set."""

    name: Annotated[str, Field(min_length=1, max_length=120)]
    label: Annotated[str, Field(max_length=200)] = ""
    status: Literal["draft", "live", "disabled"] = "draft"
    websites: list[Key] = []
    groups: Annotated[list[str], Field(max_length=200)] = []
    all_groups: bool = False
    segments: Segments = Segments()
    starts_at: int | None = None
    ends_at: int | None = None
    zone: str = "UTC"
    coupon: Annotated[str, Field(max_length=64)] = ""
    uses_total: Annotated[int, Field(ge=0)] = 0
    uses_per_customer: Annotated[int, Field(ge=0)] = 0
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    stop: bool = False
    condition: dict[str, Any] | None = None
    filter: dict[str, Any] | None = None
    action: Action

    @model_validator(mode="after")
    def _window(self) -> CartRule:
        if self.starts_at is not None and self.ends_at is not None and self.starts_at >= self.ends_at:
            raise ValueError("a rule ends after it starts")
        return self


class NewCartRule(CartRule):
    """A rule with the key it is to have for life."""

    key: Key


class Redemption(Strict):
    """A wish to use a coupon; `customer` is an opaque id, or a keyed hash of a guest's e-mail."""

    coupon: Annotated[str, Field(min_length=1, max_length=64)]
    customer: Annotated[str, Field(min_length=1, max_length=200)]


class MessagesRequest(Strict):
    """Whose promotion messages to give."""

    website: str
    segments: list[str] = []
    group: str = "guest"
    at_ms: int


class ManyMessages(Strict):
    """Many at once."""

    asks: Annotated[list[MessagesRequest], Field(max_length=100)]
