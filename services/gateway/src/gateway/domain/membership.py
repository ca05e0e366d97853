"""Where a person stands with segments, from their document and the request: in, out, or nobody can say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
from conditions import Node, holds
from msgspec.structs import replace

from gateway.domain.dimensions import GUEST, Seen
from gateway.domain.targeting import LOGIN_SAID, NOTHING_SAID, Definitions, SegmentRef

EVERYTHING_SAID = 1 << 62  # the epoch of who has no document
NO_CONSENT = 1


class Standing(NamedTuple):
    """Keys of the segments a person is in, and of those of which nobody can say: neither in nor out."""

    inside: list[str]
    unknown: list[str]


class Known(msgspec.Struct, frozen=True, gc=False):
    """What the document of an identity says, and when this changes by itself (epoch ms).

    `epoch`: of the document; NOTHING_SAID or LOGIN_SAID when Redis could not be asked, or the document not be read. Without
    `consent` they count as a stranger, whatever is known.
    """

    seen: Seen
    epoch: int = EVERYTHING_SAID
    until: int | None = None
    consent: bool = True

    @property
    def degraded(self) -> bool:
        """Whether nothing is known of them that should be."""
        return self.epoch <= LOGIN_SAID

    def asked(self, standing: Standing) -> dict[str, Any]:
        """What services are told of them."""
        group = "" if self.degraded else self.seen.group  # nobody's
        return {"segments": standing.inside, "unknown": standing.unknown, "group": group}

    def asking(self, facts: Mapping[str, str], page: Mapping[str, str]) -> Seen:
        """With what is known of a request."""
        return replace(self.seen, facts=facts, page=page)


class Document(Protocol):
    """Of a person, as contracts.audience.Audience is."""

    @property
    def group(self) -> str:
        """Of customers; empty for the guests'."""

    @property
    def consent(self) -> int:
        """NO_CONSENT among the bits: what is known must not be used."""

    @property
    def customer(self) -> bool:
        """Whether it is about a customer."""

    @property
    def epoch(self) -> int:
        """What the bits mean."""

    def bits_at(self, now_ms: int) -> int:
        """The bits at an instant."""

    def next_change(self, now_ms: int) -> int | None:
        """When the document says that something changes."""


def known_of(definitions: Definitions, identity: bytes | None, person: Document | None, now_ms: int) -> Known:
    """Of somebody with a document, or without one, which is an empty profile; and of nobody at all (no identity)."""
    logged_in = identity is not None and identity.startswith(b"c:")
    if person is None:
        return Known(Seen(definitions.empty_customer if logged_in else definitions.empty, logged_in=logged_in))
    if person.consent & NO_CONSENT:
        return Known(Seen(definitions.empty, logged_in=logged_in), consent=False)
    atoms, until = person.bits_at(now_ms), person.next_change(now_ms)
    return Known(Seen(atoms, person.group or GUEST, logged_in or person.customer), person.epoch, until)


def unknown(definitions: Definitions, identity: bytes) -> Known:
    """Of somebody whose document cannot be had. A visitor may be a customer, and only it says so."""
    logged_in = identity.startswith(b"c:")
    return Known(Seen(definitions.empty, logged_in=logged_in), epoch=LOGIN_SAID if logged_in else NOTHING_SAID)


class Facts:
    """Atoms of a person and the context of a request."""

    __slots__ = ("atoms", "bits", "context")

    def __init__(self, atoms: int, context: Mapping[str, Any]) -> None:
        self.atoms, self.context, self.bits = atoms, context, 0


class Late(NamedTuple):
    """Bits of request-dependent segments: that hold, and of which nobody can say, because they raise."""

    held: int
    unknown: int = 0


NONE_LATE = Late(0)


def late_bits(
    definitions: Definitions, refs: Iterable[SegmentRef], atoms: int, context: Mapping[str, Any], now_ms: int
) -> Late:
    """The request-dependent segments among `refs` that hold for a request."""
    wanted = sum(1 << r.bit for r in refs if r.atom is None)
    if not wanted:
        return NONE_LATE
    facts = Facts(atoms, context)
    try:
        return Late(definitions.decide(facts, now_ms)[0] & wanted)
    except Exception:
        judged = [(bit, _holds(node, facts, now_ms)) for bit, node in definitions.late if wanted >> bit & 1]
        held, unknown = (sum(1 << bit for bit, holds in judged if holds is said) for said in (True, None))
        return Late(held, unknown)


def _holds(node: Node, facts: Facts, now_ms: int) -> bool | None:
    try:
        return holds(node, facts, now_ms)
    except Exception:
        return None


def standing(refs: Iterable[SegmentRef], undefined: Iterable[str], atoms: int, late: Late, *, epoch: int) -> Standing:
    """Where a person stands with segments. `epoch`: of the person's document; of what has a later one it says nothing."""
    inside, unknown = [], set(undefined)
    for r in refs:
        if (late.unknown >> r.bit & 1 if r.atom is None else False) or epoch < r.epoch:
            unknown.add(r.key)
        elif (late.held >> r.bit if r.atom is None else atoms >> r.atom) & 1:
            inside.append(r.key)
    return Standing(inside, sorted(unknown))


def for_prices(standing: Standing, refs: Iterable[SegmentRef]) -> Standing:
    """The same, where what a page says of itself is no reason: of such segments nobody is known to be in or out."""
    said = {r.key for r in refs if r.by_anybody}
    return Standing([key for key in standing.inside if key not in said], sorted(said.union(standing.unknown)))
