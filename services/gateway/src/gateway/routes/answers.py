"""What answers look like. Instants are epoch ms, amounts minor units of the currency."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict


class Shown(TypedDict):
    """A block, with its content in the visitor's locale."""

    key: str
    content: Any


class Slot(TypedDict):
    """What a slot shows, strongest first; `fallback`: its default, because nothing else is for this visitor."""

    fallback: bool
    blocks: list[Shown]


class Message(TypedDict):
    """A rule that is for this visitor, whatever is in the cart."""

    rule: str
    label: str


class Decision(TypedDict):
    """What a visitor sees, by slot. `degraded` names what could not be asked: audience, content, promotions."""

    slots: dict[str, Slot]
    messages: list[Message]
    decision_id: str
    degraded: NotRequired[list[str]]


class Context(TypedDict):
    """Whether the visitor has an id, and when to come again (epoch seconds)."""

    visitor: bool
    expires_at: int


class Rejected(TypedDict):
    """An event that was not taken."""

    pointer: str
    reason: str
    detail: str


class Accepted(TypedDict):
    """Of a batch of events."""

    accepted: int
    rejected: list[Rejected]


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


class Cart(TypedDict):
    """An evaluated cart. While promotions cannot be asked (`degraded`) there are no versions, and nothing is taken off."""

    version: NotRequired[int]
    membership_version: NotRequired[int]
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
    trace: NotRequired[list[Traced]]
    slots: NotRequired[dict[str, Slot]]
    degraded: NotRequired[list[str]]


class Redeemed(TypedDict):
    """One use of a coupon, held until `expires_at`, or used, or given back."""

    id: str
    rule: str
    status: str
    expires_at: int


class Refusal(TypedDict):
    """Why a block is not shown, or None."""

    block: str
    refused: str | None


class Explained(TypedDict):
    """Why a person sees what they see."""

    profile: str
    consent: bool
    group: str
    segments: list[str]
    unknown: list[str]
    next_change_at: int | None
    why: dict[str, Any]
    slots: dict[str, list[Refusal]]
    messages: list[Message]


class Killed(TypedDict):
    """What nobody is shown or given, by whom and since when."""

    kind: str
    key: str
    by: str
    at_ms: int


class Kills(TypedDict):
    """By kind and key."""

    kills: list[Killed]


class Missing(TypedDict):
    """Whom a kill has not reached."""

    gateways: list[str]
    edges: list[str]
    caches: list[str]


class Done(TypedDict):
    """What became of a kill; `owner`: what the service said that has the document."""

    kind: str
    key: str
    owner: str
    done: bool
    missing: Missing
