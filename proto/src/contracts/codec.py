"""Bytes to events and back: CloudEvents in JSON (structured mode) or protobuf (binary mode), one Event from either.

How the fields are read: fields.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from contracts.events.v1 import commerce_pb2, storefront_pb2
from contracts.fields import Implausible, Seen, Undecodable, reader_of, shape_of

# An event that lists lines, and any other one. Up to two hundred of a type are looked at together.
MOST_BYTES, MOST_PLAIN_BYTES = 128 * 1024, 16 * 1024
MOST_ID = 200
WHOSE = frozenset(("login", "logout", "identify"))  # types whose data names a visitor or a customer
REQUIRED = dict.fromkeys(("order_placed", "order_status_changed", "refund_issued"), ("order_id",))
LISTS = frozenset(("cart_update", "wishlist_update", "order_placed"))
ATTRIBUTES, OPTIONAL = ("id", "source", "type", "time", "subject"), (("website", b"main"), ("specversion", b"1.0"))
DAY_MS = 86_400_000
YEAR_2000_MS = 946_684_800_000
CUSTOM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", re.ASCII)
MESSAGES: dict[str, type[Message]] = {
    "product_view": storefront_pb2.ProductView,
    "category_view": storefront_pb2.CategoryView,
    "page_view": storefront_pb2.PageView,
    "search": storefront_pb2.Search,
    "custom": storefront_pb2.Custom,
    "cart_update": storefront_pb2.CartUpdate,
    "add_to_cart": storefront_pb2.AddToCart,
    "remove_from_cart": storefront_pb2.RemoveFromCart,
    "wishlist_update": storefront_pb2.WishlistUpdate,
    "checkout_started": storefront_pb2.CheckoutStarted,
    "order_placed": commerce_pb2.OrderPlaced,
    "order_status_changed": commerce_pb2.OrderStatusChanged,
    "refund_issued": commerce_pb2.RefundIssued,
    "identify": commerce_pb2.Identify,
    "login": commerce_pb2.Login,
    "logout": commerce_pb2.Logout,
    "group_assigned": commerce_pb2.GroupAssigned,
    "consent_changed": commerce_pb2.ConsentChanged,
}


Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class Event(msgspec.Struct, frozen=True):
    """One thing that happened. `subject` is visitor:<id> or customer:<id>; `time_ms` is when it happened.

    `dropped`: how many fields it had that no message has.
    """

    id: str
    source: str
    type: str
    time_ms: int
    subject: str
    website: str
    data: dict[str, Any]
    dropped: int = 0


class _Envelope(msgspec.Struct, gc=False):
    id: str
    source: str
    type: str
    time: Instant
    subject: str
    data: Any
    website: str = "main"
    specversion: str = "1.0"


class Codec:
    """Decoders, built once."""

    def __init__(self) -> None:
        self._readers = {kind: reader_of(shape_of(message.DESCRIPTOR)) for kind, message in MESSAGES.items()}
        self._envelope = msgspec.json.Decoder(_Envelope)

    def decode(self, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> Event:
        """One event. Raises Undecodable, or Implausible for what reads well and cannot be."""
        if len(value) > MOST_BYTES:
            raise Undecodable("too-large", f"an event has at most {MOST_BYTES} bytes")
        named = {name: content or b"" for name, content in headers}
        protobuf = named.get("content-type", b"").startswith(b"application/protobuf")
        event = self._binary(value, named) if protobuf else self._structured(value)
        if len(value) > MOST_PLAIN_BYTES and event.type not in LISTS:
            raise Implausible("too-large", f"an event without lines has at most {MOST_PLAIN_BYTES} bytes")
        return event

    def _structured(self, value: bytes) -> Event:
        try:
            e = self._envelope.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = "bad-time" if str(error).endswith("`$.time`") else "not-an-event"
            raise Undecodable(reason, str(error)[:300]) from None
        return self._event(e)

    def _binary(self, value: bytes, named: Mapping[str, bytes]) -> Event:
        try:
            event_id, source, kind, time, subject = (named[f"ce_{n}"].decode() for n in ATTRIBUTES)
            website, version = (named.get(f"ce_{n}", default).decode() for n, default in OPTIONAL)
            message = self._message_of(kind).FromString(value)
            data = json_format.MessageToDict(message, preserving_proto_field_name=True)
        except KeyError as error:
            raise Undecodable("not-an-event", f"{error} is missing") from None
        except (DecodeError, json_format.Error, ValueError, RecursionError) as error:
            raise Undecodable("not-an-event", str(error)[:300]) from None
        return self._event(_Envelope(event_id, source, kind, _moment(time), subject, data, website, version))

    def _message_of(self, kind: str) -> type[Message]:
        if kind not in MESSAGES:
            raise Undecodable("unknown-type", f"{kind[:60]!r} is not an event type")
        return MESSAGES[kind]

    def _event(self, e: _Envelope) -> Event:
        if e.specversion != "1.0":
            raise Undecodable("unknown-version", f"specversion is 1.0, not {e.specversion[:20]!r}")
        self._message_of(e.type)
        seen = Seen()
        try:
            kind, data = _named(e.type, self._readers[e.type](e.data, seen))
        except Undecodable as error:
            raise error.under("data") from None
        if len(seen.currencies) > 1:
            raise Implausible("mixed-currency", f"one event in {' and '.join(sorted(seen.currencies))}")
        if seen.currencies:
            data["currency"] = seen.currencies.pop()
        return Event(e.id, e.source, kind, _milliseconds(e.time), e.subject, e.website, data, seen.dropped)


def _named(kind: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The type and the properties of an event: a custom event is known by the name it gives itself."""
    if kind != "custom":
        return kind, body
    name = body.get("name", "")
    if not CUSTOM.fullmatch(name):
        raise Implausible("bad-name", "is 1 to 60 letters, digits, dots, dashes and underscores", "name")
    return f"custom.{name}", dict(body.get("props", {}))


def _moment(text: str) -> datetime:
    try:
        return msgspec.convert(text, Instant)
    except msgspec.ValidationError as error:
        raise Undecodable("bad-time", str(error)[:100]) from None


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _named_well(name: str) -> bool:
    return 0 < len(name) <= MOST_ID and "\0" not in name


def plausible(event: Event, now_ms: int) -> None:
    """Raises Implausible for what cannot be true: see the messages."""
    _whose(event)
    if not 0 < len(event.id) <= 200 or not 0 < len(event.source) <= 200 or "\0" in event.id + event.source:
        raise Implausible("bad-id", "id and source have 1 to 200 characters")
    if not 0 < len(event.website) <= 63 or "\0" in event.website:
        raise Implausible("bad-website", "a website has 1 to 63 characters")
    if event.time_ms > now_ms + DAY_MS:
        raise Implausible("time-ahead", "the time is more than a day ahead")
    if event.time_ms < YEAR_2000_MS:
        raise Implausible("time-long-past", "the time is before 2000: seconds instead of milliseconds?")


def _whose(event: Event) -> None:
    kind, _, name = event.subject.partition(":")
    if kind not in ("visitor", "customer") or not _named_well(name):
        raise Implausible("bad-subject", "a subject is visitor:<id> or customer:<id>, with up to 200 characters")
    for field in ("visitor_id", "customer_id"):
        if field in event.data and event.type in WHOSE and not _named_well(event.data[field]):
            raise Implausible("bad-subject", "has 1 to 200 characters", f"data.{field}")
    if event.type == "login" and kind == "customer" and event.data.get("customer_id", name) != name:
        raise Implausible("bad-subject", "is not the customer of the subject", "data.customer_id")
    for field in REQUIRED.get(event.type, ()):
        if not event.data.get(field):
            raise Implausible("missing-field", "is needed", f"data.{field}")
