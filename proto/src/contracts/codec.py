"""Bytes to events and back: CloudEvents in JSON (structured mode) or protobuf (binary mode), one Event from either.

In an Event, amounts are decimals in the currency's unit and names are the proto's; whoever needs minor units has the
message. Structs for the JSON form are made from the message descriptors, so there is one truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from google.protobuf import json_format, struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from contracts.events.v1 import commerce_pb2, common_pb2, storefront_pb2

MOST_BYTES = 256 * 1024
MOST_DEPTH = 16
DAY_MS = 86_400_000
YEAR_2000_MS = 946_684_800_000
EXPONENT = {"JPY": 0, "KRW": 0, "CLP": 0, "VND": 0, "ISK": 0, "BHD": 3, "KWD": 3, "OMR": 3, "TND": 3, "JOD": 3}
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


class Event(msgspec.Struct, frozen=True):
    """One thing that happened. `subject` is visitor:<id> or customer:<id>; `time_ms` is when it happened."""

    id: str
    source: str
    type: str
    time_ms: int
    subject: str
    website: str
    data: dict[str, Any]


class Undecodable(Exception):
    """The bytes are no event; `reason` is a stable slug."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Implausible(Undecodable):
    """The event reads well, and cannot be true."""


class _Envelope(msgspec.Struct):
    id: str
    source: str
    type: str
    time: str
    subject: str
    data: msgspec.Raw
    website: str = "main"
    specversion: str = "1.0"


def money(amount: int, currency: str) -> float:
    """Minor units as a decimal of the currency."""
    return float(amount / 10 ** EXPONENT.get(currency, 2))


def _money(value: Any, path: str, currencies: set[str]) -> float:
    if not isinstance(value, dict) or set(value) - {"amount", "currency"}:
        raise Undecodable("wrong-type", f"{path} is an amount and a currency")
    currency = value.get("currency", "")
    if not isinstance(currency, str) or not (len(currency) == 3 and currency.isascii() and currency.isupper()):
        raise Undecodable("wrong-type", f"{path}.currency is an ISO 4217 code")
    currencies.add(currency)
    return money(_int(value.get("amount", 0), f"{path}.amount"), currency)


def _int(value: Any, path: str) -> int:
    """An integer, or its decimal digits in a string as canonical proto JSON writes 64-bit ones."""
    if isinstance(value, str) and value.lstrip("-").isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise Undecodable("wrong-type", f"{path} is a whole number")
    return value


class _Field:
    """How one field of a message reads from JSON."""

    __slots__ = ("kind", "name", "repeated", "shape")

    def __init__(self, field: FieldDescriptor) -> None:
        self.name, self.shape = field.name, None
        message = field.message_type
        self.repeated = bool(field.is_repeated)
        if message is None:
            self.kind = {FieldDescriptor.CPPTYPE_STRING: "str", FieldDescriptor.CPPTYPE_BOOL: "bool"}.get(
                field.cpp_type, "int"
            )
        elif message is common_pb2.Money.DESCRIPTOR:
            self.kind = "money"
        elif message is struct_pb2.Struct.DESCRIPTOR or message.GetOptions().map_entry:
            self.kind, self.repeated = "object", False
        else:
            self.kind, self.shape = "message", shape_of(message)

    def read(self, value: Any, path: str, currencies: set[str]) -> Any:
        if self.repeated:
            if not isinstance(value, list):
                raise Undecodable("wrong-type", f"{path} is a list")
            return [self.one(v, f"{path}[{i}]", currencies) for i, v in enumerate(value)]
        return self.one(value, path, currencies)

    def one(self, value: Any, path: str, currencies: set[str]) -> Any:
        if self.kind in ("str", "bool"):
            if not isinstance(value, str if self.kind == "str" else bool):
                raise Undecodable("wrong-type", f"{path} is a {self.kind}")
            return value
        if self.kind == "int":
            return _int(value, path)
        if self.kind == "money":
            return _money(value, path, currencies)
        if not isinstance(value, dict):
            raise Undecodable("wrong-type", f"{path} is an object")
        return read_message(self.shape, value, path, currencies) if self.shape is not None else value


Shape = dict[str, _Field]


def shape_of(message: Any) -> Shape:
    """JSON name and proto name -> field, of a message descriptor."""
    return {name: reader for f in message.fields for reader in [_Field(f)] for name in (f.name, f.json_name)}


def read_message(shape: Shape, value: dict[str, Any], path: str, currencies: set[str]) -> dict[str, Any]:
    """The plain form of a message. Unknown fields are refused: a misspelt one must not be lost."""
    out = {}
    for name, item in value.items():
        field = shape.get(name)
        if field is None:
            raise Undecodable("unknown-field", f"{path}.{name} is not part of the message")
        if item is not None:
            out[field.name] = field.read(item, f"{path}.{name}", currencies)
    return out


class Codec:
    """Decoders, built once."""

    def __init__(self) -> None:
        self._shapes = {kind: shape_of(message.DESCRIPTOR) for kind, message in MESSAGES.items()}
        self._envelope = msgspec.json.Decoder(_Envelope)

    def decode(self, value: bytes, headers: Sequence[tuple[str, bytes]]) -> Event:
        """One event. Raises Undecodable, or Implausible for mixed currencies."""
        if len(value) > MOST_BYTES:
            raise Undecodable("too-large", f"an event has at most {MOST_BYTES} bytes")
        named = dict(headers)
        if named.get("content-type", b"").startswith(b"application/protobuf"):
            return self._binary(value, named)
        return self._structured(value)

    def _structured(self, value: bytes) -> Event:
        try:
            envelope = self._envelope.decode(value)
            data = msgspec.json.decode(envelope.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Undecodable("not-an-event", str(error)[:300]) from None
        return self._event(
            envelope.type, data, id=envelope.id, source=envelope.source, time=envelope.time, subject=envelope.subject,
            website=envelope.website,
        )  # fmt: skip

    def _binary(self, value: bytes, named: dict[str, bytes]) -> Event:
        try:
            texts = {n: named[f"ce_{n}"].decode() for n in ("id", "source", "type", "time", "subject")}
            website = named.get("ce_website", b"main").decode()
            message = MESSAGES[texts["type"]].FromString(value)
            data = json_format.MessageToDict(message, preserving_proto_field_name=True)
        except KeyError as error:
            raise Undecodable("not-an-event", f"{error} is missing or unknown") from None
        except (DecodeError, UnicodeDecodeError, ValueError) as error:
            raise Undecodable("not-an-event", str(error)[:300]) from None
        return self._event(
            texts["type"], data, id=texts["id"], source=texts["source"], time=texts["time"], subject=texts["subject"],
            website=website,
        )  # fmt: skip

    def _event(self, kind: str, data: Any, *, time: str, **envelope: str) -> Event:
        shape = self._shapes.get(kind)
        if shape is None:
            raise Undecodable("unknown-type", f"{kind[:60]!r} is not an event type")
        if not isinstance(data, dict):
            raise Undecodable("wrong-type", "data is an object")
        currencies: set[str] = set()
        body = read_message(shape, data, "data", currencies)
        if len(currencies) > 1:
            raise Implausible("mixed-currency", f"one event in {' and '.join(sorted(currencies))}")
        if currencies:
            body["currency"] = currencies.pop()
        if kind == "custom":
            kind, body = f"custom.{body.get('name', '')}", body.get("props", {})
        return Event(type=kind, time_ms=instant(time), data=body, **envelope)


def instant(text: str) -> int:
    """Epoch milliseconds of an RFC 3339 time. Raises Undecodable."""
    try:
        moment = msgspec.convert(text, datetime)
        if moment.tzinfo is None:
            raise ValueError("a time has a zone")
        return round(moment.timestamp() * 1000)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise Undecodable("bad-time", str(error)[:100]) from None


def plausible(event: Event, now_ms: int) -> None:
    """Raises Implausible for what cannot be true: see the messages."""
    kind, _, name = event.subject.partition(":")
    if kind not in ("visitor", "customer") or not 0 < len(name) <= 200 or "\0" in event.subject:
        raise Implausible("bad-subject", "a subject is visitor:<id> or customer:<id>, with up to 200 characters")
    if not 0 < len(event.id) <= 200 or not 0 < len(event.source) <= 200:
        raise Implausible("bad-id", "id and source have 1 to 200 characters")
    if not 0 < len(event.website) <= 63 or "\0" in event.website:
        raise Implausible("bad-website", "a website has 1 to 63 characters")
    if event.time_ms > now_ms + DAY_MS:
        raise Implausible("time-ahead", "the time is more than a day ahead")
    if event.time_ms < YEAR_2000_MS:
        raise Implausible("time-long-past", "the time is before 2000: seconds instead of milliseconds?")
    _amounts(event.data, "data", 0)


def _amounts(value: Any, path: str, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise Implausible("too-deep", f"at most {MOST_DEPTH} levels")
    if isinstance(value, dict):
        for name, item in value.items():
            if (
                name in ("quantity", "price", "subtotal", "grand_total", "amount")
                and isinstance(item, int | float)
                and item < 0
            ):
                raise Implausible("negative", f"{path}.{name} is negative")
            if isinstance(item, dict | list):
                _amounts(item, f"{path}.{name}", depth + 1)
            elif isinstance(item, str) and "\0" in item:
                raise Implausible("nul-character", f"{path}.{name} has a NUL character")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            if isinstance(item, dict | list):
                _amounts(item, f"{path}[{i}]", depth + 1)
