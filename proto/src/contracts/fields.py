"""How the fields of an event read: types from the message descriptors, so that there is one truth, and a bound for each.

In what is read, amounts are decimals in the currency's unit and names are the proto's. Fields no message has are dropped, and
counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor

from contracts.currencies import EXPONENTS
from contracts.events.v1 import common_pb2

MOST_TEXT, MOST_NAME, MOST_LIST = 2000, 100, 500
MOST_DEPTH, MOST_VALUES = 8, 100
MOST_WHOLE, MOST_NUMBER = 2**53, 1e30  # the first is what every reader of JSON keeps exact
WHOLE = re.compile(r"-?[0-9]{1,19}", re.ASCII)
MONEY = frozenset(("amount", "currency"))
NEVER_NEGATIVE = {"quantity", "price", "subtotal", "grand_total", "amount"}


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


class Seen:
    """What the readers of one event come across: its currencies, and the fields nobody knows."""

    __slots__ = ("currencies", "dropped", "values")

    def __init__(self) -> None:
        self.currencies: set[str] = set()
        self.dropped = self.values = 0


def money(amount: int, currency: str) -> float:
    """Minor units as a decimal of a currency of EXPONENTS."""
    units: int = 10 ** EXPONENTS[currency]
    return amount / units


def _money(value: Any, seen: Seen) -> float:
    if not isinstance(value, dict) or not MONEY.issuperset(value):
        raise Undecodable("wrong-type", "is an amount and a currency")
    currency = value.get("currency", "")
    if not isinstance(currency, str) or currency not in EXPONENTS:
        raise Undecodable("wrong-type", "is the ISO 4217 code of a currency", "currency")
    seen.currencies.add(currency)
    try:
        return money(_int(value.get("amount", 0), seen), currency)
    except Undecodable as error:
        raise error.under("amount") from None


def _int(value: Any, _: Seen) -> int:
    """An integer, or its decimal digits in a string as canonical proto JSON writes 64-bit ones."""
    if isinstance(value, str) and WHOLE.fullmatch(value):
        value = int(value)
    if type(value) is not int:
        raise Undecodable("wrong-type", "is a whole number")
    if not -MOST_WHOLE <= value <= MOST_WHOLE:
        raise Implausible("out-of-range", f"is a whole number of at most {MOST_WHOLE}")
    return value


def _text(value: Any, _: Seen) -> str:
    if not isinstance(value, str):
        raise Undecodable("wrong-type", "is a str")
    if len(value) > MOST_TEXT:
        raise Implausible("too-long", f"has more than {MOST_TEXT} characters")
    if "\0" in value:
        raise Implausible("nul-character", "has a NUL character")
    return value


def _flag(value: Any, _: Seen) -> bool:
    if not isinstance(value, bool):
        raise Undecodable("wrong-type", "is a bool")
    return value


def _object(value: Any, seen: Seen) -> dict[str, Any]:
    """What a shop makes up itself (a Struct). It is bounded too."""
    if not isinstance(value, dict):
        raise Undecodable("wrong-type", "is an object")
    _free(value, seen, 1)
    return value


def _free(value: Any, seen: Seen, depth: int) -> None:
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


Read = Callable[[Any, Seen], Any]
Shape = dict[str, tuple[str, Read]]


def _not_negative(read: Read) -> Read:
    def checked(value: Any, seen: Seen) -> Any:
        found = read(value, seen)
        if found < 0:
            raise Implausible("negative", "is negative")
        return found

    return checked


def _each(read: Read) -> Read:
    def listed(value: Any, seen: Seen) -> list[Any]:
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


def reader_of(shape: Shape) -> Read:
    """The plain form of a message. Fields it does not have are dropped, and counted."""

    def read(value: Any, seen: Seen) -> dict[str, Any]:
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

    def entries(value: Any, seen: Seen) -> dict[str, Any]:
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
        read = reader_of(shape_of(message))
    if field.name in NEVER_NEGATIVE:
        read = _not_negative(read)
    return _each(read) if repeated else read


def shape_of(message: Any) -> Shape:
    """JSON name and proto name -> (proto name, reader), of a message descriptor."""
    return {name: (f.name, read) for f in message.fields for read in [_field(f)] for name in (f.name, f.json_name)}
