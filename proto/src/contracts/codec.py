"""Bytes to events and back: CloudEvents in JSON (structured mode) or protobuf (binary mode), one Event from either.

In an Event, amounts are decimals in the currency's unit and names are the proto's; whoever needs minor units has the
message. How the JSON form is read is made from the message descriptors, so there is one truth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from google.protobuf import json_format, struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from contracts.events.v1 import commerce_pb2, common_pb2, storefront_pb2

MOST_BYTES = 128 * 1024
MOST_TEXT, MOST_NAME, MOST_LIST = 2000, 100, 500
MOST_DEPTH, MOST_VALUES = 8, 500
MOST_WHOLE, MOST_NUMBER = 2**53, 1e30  # the first is what every reader of JSON keeps exact
ATTRIBUTES, OPTIONAL = ("id", "source", "type", "time", "subject"), (("website", b"main"), ("specversion", b"1.0"))
DAY_MS = 86_400_000
YEAR_2000_MS = 946_684_800_000
MINOR_UNITS = {
    **dict.fromkeys(("JPY", "KRW", "CLP", "VND", "ISK"), 1),
    **dict.fromkeys(("BHD", "KWD", "OMR", "TND", "JOD"), 1000),
}
WHOLE = re.compile(r"-?[0-9]{1,19}", re.ASCII)
CUSTOM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", re.ASCII)
MONEY = frozenset(("amount", "currency"))
NEVER_NEGATIVE = {"quantity", "price", "subtotal", "grand_total", "amount"}
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


class Undecodable(Exception):
    """The bytes are no event; `reason` is a stable slug, `detail` says where and what."""

    def __init__(self, reason: str, what: str, where: str = "") -> None:
        super().__init__(reason, what, where)
        self.reason, self._what, self._where = reason, what, where

    @property
    def detail(self) -> str:
        """For people."""
        return f"{self._where} {self._what}".lstrip()

    def under(self, step: str) -> Undecodable:
        """The same fault, seen from one level further out."""
        self._where = f"{step}{'' if self._where.startswith('[') or not self._where else '.'}{self._where}"
        return self

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Implausible(Undecodable):
    """The event reads well, and cannot be true."""


class _Envelope(msgspec.Struct, gc=False):
    id: str
    source: str
    type: str
    time: Instant
    subject: str
    data: Any
    website: str = "main"
    specversion: str = "1.0"


class _Seen:
    """What the readers of one event come across: its currencies, and the fields nobody knows."""

    __slots__ = ("currencies", "dropped", "values")

    def __init__(self) -> None:
        self.currencies: set[str] = set()
        self.dropped = self.values = 0


def money(amount: int, currency: str) -> float:
    """Minor units as a decimal of the currency."""
    return amount / MINOR_UNITS.get(currency, 100)


def _money(value: Any, seen: _Seen) -> float:
    if not isinstance(value, dict) or not MONEY.issuperset(value):
        raise Undecodable("wrong-type", "is an amount and a currency")
    currency = value.get("currency", "")
    if not isinstance(currency, str) or not (len(currency) == 3 and currency.isascii() and currency.isupper()):
        raise Undecodable("wrong-type", "is an ISO 4217 code", "currency")
    seen.currencies.add(currency)
    try:
        return money(_int(value.get("amount", 0), seen), currency)
    except Undecodable as error:
        raise error.under("amount") from None


def _int(value: Any, _: _Seen) -> int:
    """An integer, or its decimal digits in a string as canonical proto JSON writes 64-bit ones."""
    if isinstance(value, str) and WHOLE.fullmatch(value):
        value = int(value)
    if type(value) is not int:
        raise Undecodable("wrong-type", "is a whole number")
    if not -MOST_WHOLE <= value <= MOST_WHOLE:
        raise Implausible("out-of-range", f"is a whole number of at most {MOST_WHOLE}")
    return value


def _text(value: Any, _: _Seen) -> str:
    if not isinstance(value, str):
        raise Undecodable("wrong-type", "is a str")
    if len(value) > MOST_TEXT:
        raise Implausible("too-long", f"has more than {MOST_TEXT} characters")
    if "\0" in value:
        raise Implausible("nul-character", "has a NUL character")
    return value


def _flag(value: Any, _: _Seen) -> bool:
    if not isinstance(value, bool):
        raise Undecodable("wrong-type", "is a bool")
    return value


def _object(value: Any, seen: _Seen) -> dict[str, Any]:
    """What a shop makes up itself (a Struct). It is bounded too."""
    if not isinstance(value, dict):
        raise Undecodable("wrong-type", "is an object")
    _free(value, seen, 1)
    return value


def _free(value: Any, seen: _Seen, depth: int) -> None:
    seen.values += 1
    if depth > MOST_DEPTH or seen.values > MOST_VALUES:
        raise Implausible("too-large", f"has more than {MOST_DEPTH} levels or {MOST_VALUES} values")
    if isinstance(value, dict):
        for name in value:
            if not 0 < len(name) <= MOST_NAME or "\0" in name:
                raise Implausible("bad-name", f"has a name that is not 1 to {MOST_NAME} characters")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _free(item, seen, depth + 1)
    elif isinstance(value, str):
        _text(value, seen)
    elif isinstance(value, float) and not abs(value) < MOST_NUMBER:
        raise Implausible("out-of-range", f"is not a number below {MOST_NUMBER:.0e}")
    elif type(value) is int:
        _int(value, seen)


Read = Callable[[Any, _Seen], Any]
Shape = dict[str, tuple[str, Read]]


def _not_negative(read: Read) -> Read:
    def checked(value: Any, seen: _Seen) -> Any:
        found = read(value, seen)
        if found < 0:
            raise Implausible("negative", "is negative")
        return found

    return checked


def _each(read: Read) -> Read:
    def listed(value: Any, seen: _Seen) -> list[Any]:
        if not isinstance(value, list):
            raise Undecodable("wrong-type", "is a list")
        if len(value) > MOST_LIST:
            raise Implausible("too-long", f"has more than {MOST_LIST} entries")
        found = []
        for i, item in enumerate(value):
            try:
                found.append(read(item, seen))
            except Undecodable as error:
                raise error.under(f"[{i}]") from None
        return found

    return listed


def _message(shape: Shape) -> Read:
    """The plain form of a message. Fields it does not have are dropped, and counted."""

    def read(value: Any, seen: _Seen) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Undecodable("wrong-type", "is an object")
        out = {}
        for name, item in value.items():
            if name not in shape:
                seen.dropped += 1
            elif item is not None:
                field, of = shape[name]
                try:
                    out[field] = of(item, seen)
                except Undecodable as error:
                    raise error.under(name) from None
        return out

    return read


def _map(read: Read) -> Read:
    """A map of names to values of one type."""

    def entries(value: Any, seen: _Seen) -> dict[str, Any]:
        _object(value, seen)
        out = {}
        for name, item in value.items():
            try:
                out[name] = read(item, seen)
            except Undecodable as error:
                raise error.under(name) from None
        return out

    return entries


def _field(field: FieldDescriptor) -> Read:
    """How one field reads from JSON."""
    message, repeated = field.message_type, bool(field.is_repeated)
    if message is None:
        scalars: dict[int, Read] = {FieldDescriptor.CPPTYPE_STRING: _text, FieldDescriptor.CPPTYPE_BOOL: _flag}
        read = scalars.get(field.cpp_type, _int)
    elif message is common_pb2.Money.DESCRIPTOR:
        read = _money
    elif message is struct_pb2.Struct.DESCRIPTOR:
        return _object
    elif message.GetOptions().map_entry:
        return _map(_field(message.fields_by_name["value"]))
    else:
        read = _message(shape_of(message))
    if field.name in NEVER_NEGATIVE:
        read = _not_negative(read)
    return _each(read) if repeated else read


def shape_of(message: Any) -> Shape:
    """JSON name and proto name -> (proto name, reader), of a message descriptor."""
    return {name: (f.name, read) for f in message.fields for read in [_field(f)] for name in (f.name, f.json_name)}


class Codec:
    """Decoders, built once."""

    def __init__(self) -> None:
        self._readers = {kind: _message(shape_of(message.DESCRIPTOR)) for kind, message in MESSAGES.items()}
        self._envelope = msgspec.json.Decoder(_Envelope)

    def decode(self, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> Event:
        """One event. Raises Undecodable, or Implausible for what reads well and cannot be."""
        if len(value) > MOST_BYTES:
            raise Undecodable("too-large", f"an event has at most {MOST_BYTES} bytes")
        named = {name: content or b"" for name, content in headers}
        if named.get("content-type", b"").startswith(b"application/protobuf"):
            return self._binary(value, named)
        return self._structured(value)

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
        seen = _Seen()
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


def plausible(event: Event, now_ms: int) -> None:
    """Raises Implausible for what cannot be true: see the messages."""
    kind, _, name = event.subject.partition(":")
    if kind not in ("visitor", "customer") or not 0 < len(name) <= 200 or "\0" in event.subject:
        raise Implausible("bad-subject", "a subject is visitor:<id> or customer:<id>, with up to 200 characters")
    if not 0 < len(event.id) <= 200 or not 0 < len(event.source) <= 200 or "\0" in event.id + event.source:
        raise Implausible("bad-id", "id and source have 1 to 200 characters")
    if not 0 < len(event.website) <= 63 or "\0" in event.website:
        raise Implausible("bad-website", "a website has 1 to 63 characters")
    if event.time_ms > now_ms + DAY_MS:
        raise Implausible("time-ahead", "the time is more than a day ahead")
    if event.time_ms < YEAR_2000_MS:
        raise Implausible("time-long-past", "the time is before 2000: seconds instead of milliseconds?")
