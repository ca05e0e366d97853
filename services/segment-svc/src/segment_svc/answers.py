"""What answers to merchants look like. Instants are epoch ms."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from segment_svc.schemas import NewDefinition


class StoredSegment(NewDefinition):
    """A segment as it was saved last, the version that serves, if one does, and the fields of a request that it depends on."""

    id: int
    version: int
    live_version: int | None
    quarantined: str | None
    request_fields: list[str]


class Segments(TypedDict):
    """A page, by key, and what to ask the next one with."""

    segments: list[StoredSegment]
    next: str | None


class Asked(TypedDict):
    """A segment by its key, and the fields of a request that it depends on."""

    key: str
    request_fields: list[str]


class AskedSegments(TypedDict):
    """By key; who may not see one is told as if there were none."""

    segments: list[Asked]


class Preview(TypedDict):
    """How many people match: of those looked at, and of all with a 95 % margin."""

    matched: int
    sampled: int
    profiles: int
    estimate: int
    margin95: int
    exact: bool


class Member(TypedDict):
    """Since when, why, and by which version."""

    profile: str
    since: int
    cause: str
    definition_version: int


class Members(TypedDict):
    """A page, how many there are in all, and what to ask the next page with."""

    count: int
    members: list[Member]
    next: str | None


class Transition(TypedDict):
    """Somebody entered or left."""

    at: int
    entered: bool
    cause: str
    definition_version: int
    source_event: str | None


class Why(TypedDict):
    """Why a person is in a segment or not: per node what was seen and when it flips; the latest transitions first."""

    segment: str
    profile: str
    known: bool
    why: dict[str, Any]
    transitions: list[Transition]
    at: NotRequired[int]
    member_at: NotRequired[bool]


class Standing(TypedDict):
    """A segment that somebody is in."""

    segment: str
    since: int
    cause: str
    definition_version: int


class Profile(TypedDict):
    """What is known of a person."""

    profile: str
    identities: list[str]
    kind: str
    version: int
    next_flip_at: int | None
    segments: list[Standing]
    facts: dict[str, Any]


class Backfill(TypedDict):
    """One run over everybody: one that waits begins when the one that runs is done; one is replaced by a later change of all its
    segments."""

    id: int
    status: Literal["running", "waiting", "done", "replaced"]
    done: int
    total: int | None
    entered: int
    exited: int
    created_at: int
    finished_at: int | None
    segments: list[str]


class Backfills(TypedDict):
    """Newest first."""

    backfills: list[Backfill]


class Position(TypedDict):
    """Where a partition is to be read next, and why it is halted."""

    topic: str
    partition: int
    next_offset: int
    last_ms: int | None
    halted: str | None


class Positions(TypedDict):
    """By topic and partition."""

    positions: list[Position]
