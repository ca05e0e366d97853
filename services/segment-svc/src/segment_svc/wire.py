"""Between the wire and the domain; the only file that imports the contracts.

Records become Incoming (or Dead, with a reason); transitions, documents and releases become outbox payloads. An
outbox payload is a MessagePack list, so that one row carries a whole batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from chassis import bus
from chassis.bus import Record
from contracts import facts, topics
from contracts.codec import Codec, Event, Undecodable, plausible

from segment_svc.domain.activity import Activity, pack
from segment_svc.store import Transition

AUDIENCE = "audience"
LATE_MS = 3600 * 1000
PREFIX = {"visitor": "v", "customer": "c"}
_pack = msgspec.msgpack.Encoder().encode
_documents = msgspec.msgpack.Decoder(list[tuple[list[str], int, bytes]]).decode


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """An event for the flow: whose it is (first identity), and whom it makes one person."""

    event_id: str
    identities: tuple[str, ...]
    activity: Activity
    login: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Dead:
    """A record that cannot be applied, and why."""

    record: Record
    reason: str
    detail: str


def decode(codec: Codec, records: Sequence[Record], *, now: int) -> tuple[list[Incoming], list[Dead]]:
    """Split records into events to apply and dead letters, in order."""
    incoming: list[Incoming] = []
    dead: list[Dead] = []
    for record in records:
        try:
            event = codec.decode(record.value or b"", record.headers)
            plausible(event, now)
            incoming.append(_incoming(event))
        except Undecodable as error:
            dead.append(Dead(record, error.reason, error.detail))
    return incoming, dead


def _incoming(event: Event) -> Incoming:
    kind, _, name = event.subject.partition(":")
    identity = f"{PREFIX[kind]}:{name}"
    login = _login(event, identity) if event.type in ("login", "identify") else None
    digest = hashlib.blake2b(f"{event.source}\0{event.id}".encode(), digest_size=8).digest()
    id_hash = int.from_bytes(digest, "big", signed=True)
    activity = Activity(id_hash, event.type, event.time_ms, event.website, pack(event.data))
    return Incoming(event.id, (identity,) if login is None else (login[1], login[0]), activity, login)


def _login(event: Event, identity: str) -> tuple[str, str] | None:
    """The visitor and the customer an event makes one person."""
    visitor, customer = event.data.get("visitor_id"), event.data.get("customer_id")
    if event.type == "login" and visitor and customer:
        return f"v:{visitor}", f"c:{customer}"
    if event.type == "identify" and visitor and identity.startswith("c:"):
        return f"v:{visitor}", identity
    return None


def membership_facts(moves: Sequence[Transition], keys: Mapping[int, str], *, now: int) -> bytes:
    """An outbox payload: one segment.membership.v1 fact per transition, keyed by profile."""
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


def targeting_facts(version: int, tags: Sequence[str], *, now: int) -> bytes:
    """An outbox payload: one targeting.changed.v1 fact."""
    fact = facts.targeting(source="segment-svc", website="", version=version, tags=list(tags), time_ms=now)
    return bus.pack([Record(topics.TARGETING_CHANGED, None, fact, facts.HEADERS)])


def dead_letters(dead: Sequence[Dead]) -> bytes:
    """An outbox payload: the original bytes and headers for `<topic>.dlq`, with why and where from."""
    return bus.pack([d.record._replace(topic=f"{d.record.topic}.dlq", headers=_marked(d)) for d in dead])


def _marked(dead: Dead) -> tuple[tuple[str, bytes], ...]:
    return (
        *dead.record.headers,
        ("dlq-reason", dead.reason.encode()),
        ("dlq-detail", dead.detail.encode(errors="replace")[:500]),
        ("dlq-partition", b"%d" % dead.record.partition),
        ("dlq-offset", b"%d" % dead.record.offset),
    )


def audience(documents: Sequence[tuple[Sequence[str], int, bytes | None]]) -> bytes:
    """An outbox payload: (identities, version, document) of people whose document changed."""
    return _pack([(list(names), version, body or b"") for names, version, body in documents])


def documents_of(payloads: Sequence[bytes]) -> list[tuple[str, int, bytes]]:
    """(Redis key, version, document) to write, from payloads of the channel AUDIENCE."""
    return [
        (f"aud:{name}", version, body)
        for payload in payloads
        for names, version, body in _documents(payload)
        for name in names
    ]
