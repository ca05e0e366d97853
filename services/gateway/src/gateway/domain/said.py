"""What the services say, as far as it is looked at here. What does not look so says nothing: a service may be broken, or of
another version, and no answer of it may stay in the way of what it says next. Instants are epoch ms.

Of carts: said_of_carts.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, NotRequired, TypeVar

from msgspec import Meta
from typing_extensions import TypedDict

T = TypeVar("T")
Whole = Annotated[int, Meta(ge=0, lt=10**15)]
Number = Annotated[int, Meta(ge=0, lt=1 << 31)]  # of a segment
Bit = Annotated[int, Meta(ge=0, lt=1 << 16)]
Bits = Annotated[str, Meta(pattern=r"^([0-9a-f]{2})*$")]
Word = Annotated[str, Meta(pattern=r"^[!-~]{1,100}$")]  # a tag or a website: it stands in header lines


class Head(TypedDict):
    """Of GET /v1/head: the version, the run of Redis that is reached, the database's time; the run that documents go to."""

    version: Whole
    redis: str | None
    at_ms: int
    home: NotRequired[str | None]


class Change(TypedDict):
    """What a version changed, and when; it is not to be followed without the segments it `needs`; None: nobody knows which."""

    version: Whole
    tags: list[Word]
    at: NotRequired[Whole]
    websites: NotRequired[list[Word]]
    needs: NotRequired[Whole | None]
    hard: NotRequired[bool]


class Empty(TypedDict):
    """The bits of who has no document."""

    visitor: Bits
    customer: Bits


class Segment(TypedDict):
    """One bit of a person's document, or what is left to be decided with the request."""

    id: Number
    key: str
    websites: list[str]
    atom: Bit | None
    epoch: Whole
    since: Whole
    residual: Any


class Segments(TypedDict):
    """Of segment-svc GET /v1/definitions."""

    version: Whole
    empty: Empty
    segments: list[Segment]
    changes: list[Change]


class Audience(TypedDict):
    """What an answer depends on, at which websites; without any named, at all."""

    websites: list[str]
    segments: list[str]
    groups: list[str]
    boundaries: list[Whole]


class SlotTargeting(TypedDict):
    """What the answers of a slot depend on, and its default by locale."""

    websites: list[str]
    audiences: list[Audience]
    locales: list[str]
    default: dict[str, Any]
    tags: list[Word]


class Content(TypedDict):
    """Of content-svc GET /v1/targeting."""

    version: Whole
    slots: dict[str, SlotTargeting]
    changes: list[Change]


class Promo(TypedDict):
    """Of promo-svc GET /v1/targeting."""

    version: Whole
    rules: list[Audience]
    segments: list[str]
    changes: list[Change]


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


class Refusal(TypedDict):
    """Why a block is not shown, or None."""

    block: str
    refused: str | None


class Selected(TypedDict):
    """Of content-svc, for one visitor; `refused` and empty, where what was asked is not valid."""

    version: Whole
    slots: dict[str, Slot]
    tags: list[Word]
    next_change_at: Whole | None
    explain: NotRequired[dict[str, list[Refusal]]]
    refused: NotRequired[Any]


class Messages(TypedDict):
    """The same of promo-svc."""

    version: Whole
    messages: list[Message]
    tags: list[Word]
    next_change_at: Whole | None
    refused: NotRequired[Any]


class Many(TypedDict, Generic[T]):
    """In the order of what was asked."""

    answers: list[T]


class Asking(TypedDict):
    """A segment, and the fields of a request that it depends on."""

    key: str
    request_fields: list[str]


class Named(TypedDict):
    """Segments by their names."""

    segments: list[Asking]
