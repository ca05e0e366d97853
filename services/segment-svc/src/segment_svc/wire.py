"""Between the wire and the domain; the only file that imports the contracts.

Records become Incoming (or Dead, with a reason); transitions, documents and releases become outbox payloads. An
outbox payload is a MessagePack list, so that one row carries a whole batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from chassis import bus
from chassis.bus import MOST_RECORD, Headers, Record, header_size
from contracts import audience as audiences
from contracts import facts, topics
from contracts.codec import Codec, Event, plausible
from contracts.fields import Undecodable

from segment_svc.domain.activity import Activity, pack
from segment_svc.domain.transition import Transition
from segment_svc.telemetry import DROPPED

AUDIENCE = "audience"
# Where all documents are said to be there; the version that one is stored under.
MARK, dated = audiences.MARK, audiences.dated
LATE_MS = 3600 * 1000
MOST_DOCUMENTS, MOST_HEADER, MOST_HEADERS = 500, 4096, 50
PREFIX = {"visitor": "v", "customer": "c"}
_pack = msgspec.msgpack.Encoder().encode
_documents = msgspec.msgpack.Decoder(list[tuple[list[str], int, bytes]]).decode


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """An event for the flow: whose it is (first identity), whom it makes one person, and the record it came in."""

    event_id: str
    identities: tuple[str, ...]
    activity: Activity
    login: tuple[str, str] | None
    record: Record


@dataclass(frozen=True, slots=True)
class Dead:
    """A record that cannot be applied, and why."""

    record: Record
    reason: str
    detail: str


def document(
    epoch: int, bits: bytes, flips: Iterable[tuple[int, bytes]], *, group: str, consent: int, covered_until: int | None,
    customer: bool,
) -> bytes:  # fmt: skip
    """An audience document, as contracts.audience says."""
    return audiences.encode(
        audiences.Audience(audiences.FORMAT, epoch, bits, tuple(flips), group, consent, covered_until, customer)
    )


def changed_document(stored: bytes, epoch: int, change: Callable[[bytes], bytes]) -> bytes:
    """The same with other bits, now and later, which are of an epoch."""
    found = audiences.decode(stored)
    flips = tuple((at, change(bits)) for at, bits in found.flips)
    return audiences.encode(msgspec.structs.replace(found, epoch=epoch, bits=change(found.bits), flips=flips))


def decode(codec: Codec, records: Sequence[Record], *, now: int) -> tuple[list[Incoming], list[Dead]]:
    """Split records into events to apply and dead letters, in order."""
    incoming: list[Incoming] = []
    dead: list[Dead] = []
    for record in records:
        try:
            event = codec.decode(record.value or b"", record.headers)
            plausible(event, now)
            _at_home(event, record)
            incoming.append(_incoming(event, record))
        except Undecodable as error:
            dead.append(Dead(record, error.reason, error.detail))
            continue
        except Exception as error:  # whatever a decoder raises is about this record, and stops no other
            dead.append(Dead(record, "unreadable", type(error).__name__))
            continue
        if event.dropped:
            DROPPED.labels(type=event.type if event.type in topics.TOPIC_OF else "custom").inc(event.dropped)
    return incoming, dead


def _at_home(event: Event, record: Record) -> None:
    """Raise Undecodable for an event in a topic that does not carry its type; what came over HTTP is in none."""
    home = topics.TOPIC_OF["custom" if event.type.startswith("custom.") else event.type]
    if record.topic in topics.INPUT and record.topic != home:
        raise Undecodable("wrong-topic", f"{event.type} belongs to {home}")


def _incoming(event: Event, record: Record) -> Incoming:
    kind, _, name = event.subject.partition(":")
    identity = f"{PREFIX[kind]}:{name}"
    login = _login(event, identity) if event.type in ("login", "identify") else None
    digest = hashlib.blake2b(f"{event.source}\0{event.id}".encode(), digest_size=8).digest()
    id_hash = int.from_bytes(digest, "big", signed=True)
    activity = Activity(id_hash, event.type, event.time_ms, event.website, pack(event.data))
    return Incoming(event.id, (identity,) if login is None else (login[1], login[0]), activity, login, record)


def _login(event: Event, identity: str) -> tuple[str, str] | None:
    """The visitor and the customer an event makes one person."""
    visitor, customer = event.data.get("visitor_id"), event.data.get("customer_id")
    if event.type == "login" and visitor and customer:
        return f"v:{visitor}", f"c:{customer}"
    if event.type == "identify" and visitor and identity.startswith("c:"):
        return f"v:{visitor}", identity
    return None


def membership_facts(moves: Sequence[Transition], keys: Mapping[int, str], *, now: int) -> list[bytes]:
    """Outbox payloads: one segment.membership.v1 fact per transition, keyed by profile."""
    return bus.pack(
        [
            Record(
                topics.SEGMENT_MEMBERSHIP,
                move.profile.encode(),
                facts.membership(
                    profile=move.profile,
                    segment=keys[move.segment_id],
                    entered=move.entered,
                    at_ms=move.at,
                    cause=move.cause,
                    definition_version=move.definition_version,
                    source_event=move.source_event,
                    time_ms=now,
                ),
                facts.HEADERS,
            )
            for move in moves
        ]
    )


def targeting_facts(version: int, tags: Sequence[str], *, now: int) -> list[bytes]:
    """Outbox payloads: one targeting.changed.v1 fact."""
    fact = facts.targeting(source="segment-svc", website="", version=version, tags=list(tags), time_ms=now)
    return bus.pack([Record(topics.TARGETING_CHANGED, None, fact, facts.HEADERS)])


def dead_letters(dead: Sequence[Dead]) -> list[bytes]:
    """Outbox payloads: the original bytes and headers for `<topic>.dlq`, with why and where from.

    A record that would not fit in a broker's is cut, and says how long it was; the whole one is at its partition and offset.
    """
    return bus.pack([_letter(d) for d in dead])


def _letter(dead: Dead) -> Record:
    record = dead.record
    marks: Headers = (
        ("dlq-reason", dead.reason.encode()),
        ("dlq-detail", dead.detail.encode(errors="replace")[:500]),
        ("dlq-partition", b"%d" % record.partition),
        ("dlq-offset", b"%d" % record.offset),
    )
    letter = record._replace(topic=f"{record.topic}.dlq", value=record.value or b"", headers=(*record.headers, *marks))
    if letter.size <= MOST_RECORD:
        return letter
    marks = (*marks, ("dlq-cut", b"%d" % record.size))
    kept = [header for header in record.headers if header_size(*header) < MOST_HEADER][:MOST_HEADERS]
    key, value = record.key, letter.value or b""
    return letter._replace(
        key=key if len(key or b"") < MOST_HEADER else None, value=value[: MOST_RECORD // 2], headers=(*kept, *marks)
    )


def audience(documents: Sequence[tuple[Sequence[str], int, bytes | None]], *, era: int) -> list[bytes]:
    """Outbox payloads: (identities, version, document) of people whose document changed, MOST_DOCUMENTS keys in each at most."""
    lots: list[list[tuple[list[str], int, bytes]]] = []
    room = 0
    for names, version, body in documents:
        for start in range(0, len(names), MOST_DOCUMENTS):
            part = list(names[start : start + MOST_DOCUMENTS])
            if len(part) > room:
                lots.append([])
                room = MOST_DOCUMENTS
            lots[-1].append((part, dated(era, version), body or b""))
            room -= len(part)
    return [_pack(lot) for lot in lots]


def documents_of(payload: bytes) -> list[tuple[str, int, bytes]]:
    """(Redis key, version, document) to write, from a payload of the channel AUDIENCE. Raises ValueError (msgspec's)."""
    return [(f"aud:{name}", version, body) for names, version, body in _documents(payload) for name in names]
