"""What answers look like. Instants are epoch ms, amounts minor units of the currency."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from gateway.domain.said import Message, Refusal, Slot
from gateway.domain.said_of_carts import Totals, Traced


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


class Cart(Totals):
    """An evaluated cart. While promotions cannot be asked (`degraded`) there are no versions, and nothing is taken off."""

    version: NotRequired[int]
    membership_version: NotRequired[int]
    trace: NotRequired[list[Traced]]
    slots: NotRequired[dict[str, Slot]]
    degraded: NotRequired[list[str]]


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
    """What nobody is shown or given, by whom and since when; `owed`: its owner was away, and is still to switch it off."""

    kind: str
    key: str
    by: str
    at_ms: int
    owed: bool


class Kills(TypedDict):
    """By kind and key."""

    kills: list[Killed]


class Missing(TypedDict):
    """Whom a kill has not reached; `redis`: where gateways read of it that start, or were away; `database`: where it is kept when
    Redis and all gateways lost it."""

    redis: bool
    database: bool
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
