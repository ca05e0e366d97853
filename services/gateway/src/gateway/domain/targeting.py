"""What decides a request, as of one version of everything: from a person's document to the segments that matter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from conditions import Invalid, Node, Vocabulary, compile_set, holds, parse
from conditions.context import Atom, Context

VOCABULARY = Vocabulary([Atom(), Context()])
MOST_VARY = 32
MOST_SLOTS, MOST_SLOT, MOST_LOCALE, MOST_TEXT = 20, 63, 10, 200
SLOTS = f"names up to {MOST_SLOTS} slots, each of 1 to {MOST_SLOT} characters"


class Person(msgspec.Struct, array_like=True, frozen=True):
    """The audience document as segment-svc writes it (its README): bits and flips are little-endian bytes."""

    bits: bytes
    flips: list[tuple[int, bytes]]
    group: str
    consent: int
    covered_until: int | None
    customer: bool


decode = msgspec.msgpack.Decoder(Person).decode


class Facts:
    """Atoms of a person and the context of a request."""

    __slots__ = ("atoms", "bits", "context")

    def __init__(self, atoms: int, context: Mapping[str, Any]) -> None:
        self.atoms, self.context, self.bits = atoms, context, 0


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """A segment: `atom` when its membership is one bit of the person, else its bit among the request-dependent ones."""

    id: int
    key: str
    websites: tuple[str, ...]
    atom: int | None


@dataclass(slots=True)
class Definitions:
    """Segments of one release. `decide` gives the bits (by segment id) of those that need the request.

    `empty`, `empty_customer`: the bits of a visitor, and of a customer, of whom nothing is known.
    `unreadable`: keys of those this version of the gateway cannot read. They are nobody's, and stop no other.
    """

    version: int
    empty: int
    empty_customer: int
    segments: dict[str, SegmentRef]
    late: list[tuple[int, Node]]
    decide: Callable[[Any, int], tuple[int, int | None]]
    changes: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def definitions_of(raw: Mapping[str, Any]) -> Definitions:
    """From the answer of segment-svc GET /v1/definitions."""
    refs, late, unreadable = {}, [], []
    for s in raw["segments"]:
        try:
            if s["residual"] is not None:
                late.append((s["id"], parse(s["residual"], VOCABULARY)))
            refs[s["key"]] = SegmentRef(s["id"], s["key"], tuple(s["websites"]), s["atom"])
        except Invalid:
            unreadable.append(s["key"])
    empty, customer = (int.from_bytes(bytes.fromhex(raw["empty"][kind]), "little") for kind in ("visitor", "customer"))
    return Definitions(raw["version"], empty, customer, refs, late, compile_set(late), list(raw["changes"]), unreadable)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one kind of request (website, slots, locale) is answered: which of a person's bits it looks at.

    `unknown` are slots that were asked for and are nowhere: nothing that is remembered has them in it, or in its key.
    `release` is the one of the gateway's knowledge it was made from.
    """

    website: str
    slots: tuple[str, ...]
    locale: str
    mask: int
    durable: tuple[SegmentRef, ...]
    late: tuple[SegmentRef, ...]
    groups: bool
    boundaries: tuple[int, ...]
    unknown: tuple[str, ...] = ()
    release: int = 0

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        return 2000 + 32 * (len(self.durable) + len(self.late) + len(self.boundaries)) + 150 * len(self.unknown)

    @property
    def ids(self) -> list[int]:
        """Ids of the segments that matter, ascending."""
        return sorted(ref.id for ref in (*self.durable, *self.late))


def plan(
    definitions: Definitions, content: Mapping[str, Any], promo: Mapping[str, Any], *, website: str,
    slots: Sequence[str], locale: str, release: int,
) -> Plan:  # fmt: skip
    """Look up once what a kind of request depends on. Segments of other websites, and unknown ones, are nobody's."""
    known = [content["slots"][s] for s in slots]
    keys = {key for slot in known for key in slot["segments"]} | set(promo["segments"])
    refs = [definitions.segments[k] for k in sorted(keys) if k in definitions.segments]
    refs = [r for r in refs if not r.websites or website in r.websites]
    durable = tuple(r for r in refs if r.atom is not None)
    return Plan(
        website=website,
        slots=tuple(slots),
        locale=locale,
        mask=sum(1 << r.atom for r in durable if r.atom is not None),
        durable=durable,
        late=tuple(r for r in refs if r.atom is None),
        groups=bool(promo["groups"]) or any(slot["groups"] for slot in known),
        boundaries=tuple(sorted({*promo["boundaries"], *(b for slot in known for b in slot["boundaries"])})),
        release=release,
    )


def resolved(locale: str, known: Collection[str]) -> str:
    """The locale that content is found under, of those there are: itself, else its language, else `*`.

    So that nobody's inventions become keys of what is remembered.
    """
    return next((name for name in (locale, locale.split("-")[0]) if name in known), "*")


def bits_at(person: Person, now_ms: int) -> int:
    """The person's bits at this instant: coming flips that fell due count, although nobody rewrote the document."""
    bits = person.bits
    for at, after in person.flips:
        if at > now_ms:
            break
        bits = after
    return int.from_bytes(bits, "little")


def next_flip(person: Person, now_ms: int) -> int | None:
    """The next instant at which the document itself says that something changes."""
    for at, _ in person.flips:
        if at > now_ms:
            return at
    return person.covered_until


def late_bits(
    definitions: Definitions, refs: Iterable[SegmentRef], atoms: int, context: Mapping[str, Any], now_ms: int
) -> int:
    """Bits, by segment id, of the request-dependent segments among `refs` that hold. One that raises holds for nobody."""
    wanted = sum(1 << r.id for r in refs)
    if not wanted:
        return 0
    facts = Facts(atoms, context)
    try:
        return definitions.decide(facts, now_ms)[0] & wanted
    except Exception:
        return sum(1 << bit for bit, node in definitions.late if wanted >> bit & 1 and _holds(node, facts, now_ms))


def _holds(node: Node, facts: Facts, now_ms: int) -> bool:
    try:
        return holds(node, facts, now_ms)
    except Exception:
        return False


def members(refs: Iterable[SegmentRef], atoms: int, late: int) -> list[SegmentRef]:
    """The segments a person is in, of those listed."""
    return [r for r in refs if (late >> r.id if r.atom is None else atoms >> r.atom) & 1]


def are_slots(named: Any) -> bool:
    """Whether this is what `SLOTS` says."""
    return (
        isinstance(named, list)
        and len(named) <= MOST_SLOTS
        and all(isinstance(s, str) and 0 < len(s) <= MOST_SLOT for s in named)
    )


def brief(fields: Mapping[str, str]) -> dict[str, str]:
    """Fields of a request, each cut to what a condition may have to look at."""
    return {name: value[:MOST_TEXT] for name, value in fields.items()}


def request_context(
    headers: Mapping[str, str], query: Mapping[str, str], *, now_ms: int, zone: ZoneInfo
) -> dict[str, Any]:
    """Context fields of a request: what the edge says of its origin (x-geo-*), the browser of itself, the page of the visit."""
    headers, query = brief(headers), brief(query)
    local = datetime.fromtimestamp(now_ms / 1000, zone)
    agent = headers.get("user-agent", "").lower()
    language = headers.get("accept-language", "").split(",")[0].split(";")[0].strip()
    found = {
        "country": headers.get("x-geo-country"),
        "region": headers.get("x-geo-region"),
        "city": headers.get("x-geo-city"),
        "device": "mobile" if "mobi" in agent else "desktop",
        "language": language.split("-")[0].lower(),
        "locale": query.get("locale"),
        "referrer": headers.get("referer"),
        "landing_page": query.get("path"),
        "hour": local.hour,
        "weekday": local.isoweekday(),
        "visit": query.get("visit"),
        "logged_in": "true" if query.get("logged_in") in ("1", "true") else "false",
    }
    return {**found, **{k: query.get(k) for k in ("utm_source", "utm_medium", "utm_campaign")}}
