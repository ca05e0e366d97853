"""What a JSON value is when it is compared: a number, a text, an instant. Total: of anything odd there is none.

Numbers are exact: whole ones stay int, others become Decimal as they are written, never a binary fraction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, tzinfo
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any, TypeAlias
from unicodedata import normalize

import re2

Number: TypeAlias = "int | Decimal"
MOST_DIGITS = 30
SAFE = 2**53  # from there on a binary number has no fraction, and not every whole number is one
MOST_TEXT = 6_000
MOST_ELEMENTS = 500  # as many as a list in an event may have
MOST_FOLDED = 1 << 20  # characters of which the fold is kept
NOT_PLAIN = frozenset((list, tuple, type(None)))
DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9:]{5,8}(?:[.,][0-9]{1,9})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?")
# To put marks over one letter in order takes the square of their number; nobody writes more than 30 (UAX #15, D3).
_TOO_MANY_MARKS = re2.compile(rb"(\p{M}{30})\p{M}+")
_TOO_LARGE = 10**MOST_DIGITS
_PLACES = Context(prec=80)


def number(value: Any) -> Number | None:
    """The value as an exact number: a JSON number, or a text that is strictly a decimal; at most 30 digits."""
    kind = type(value)
    if kind is int or kind is Decimal:
        return value if -_TOO_LARGE < value < _TOO_LARGE else None
    if kind is float:
        if not -_TOO_LARGE < value < _TOO_LARGE:
            return None
        found = Decimal(repr(value))
        return int(found) if value.is_integer() else found
    if kind is not str or not 0 < len(value) <= MOST_DIGITS + 2 or not DECIMAL.fullmatch(value):
        return None
    digits = len(value) - ("." in value) - (value[0] in "+-")
    if digits > MOST_DIGITS:
        return None
    found = Decimal(value)
    return int(found) if found == found.to_integral_value() else found


def number_said(value: Any) -> Number | None:
    """A JSON number as somebody wrote it; None for what is none, and for one so large that its fraction was lost in reading."""
    lost = type(value) is float and abs(value) >= SAFE
    return None if lost or type(value) not in (int, float) else number(value)


def scaled(value: Any, places: int) -> int:
    """The number as a whole count of its `places`-th decimal places, rounded half even; what is no number is 0."""
    found = number(value) or 0
    return found * 10**places if type(found) is int else int(_PLACES.scaleb(found, places).to_integral_value())


def ratio(whole: int, parts: int) -> Number:
    """The quotient, exact to 80 digits."""
    return whole // parts if whole % parts == 0 else _PLACES.divide(Decimal(whole), Decimal(parts))


def missing(value: Any) -> bool:
    """Whether there is nothing to compare: null, an empty text, a list without anything in it."""
    return value is None or value == "" or (isinstance(value, list | tuple) and not any(True for _ in elements(value)))


def elements(value: Any) -> Iterable[Any]:
    """What is in a list, lists in it flattened, in order; of anything else, itself. What is missing is left out.

    At most MOST_ELEMENTS are looked at, lists in it and what is missing among them.
    """
    if isinstance(value, list | tuple) and len(value) <= MOST_ELEMENTS and NOT_PLAIN.isdisjoint(map(type, value)):
        return [item for item in value if item != ""]
    return _flattened(value)


def _flattened(value: Any) -> Iterator[Any]:
    waiting = [value]
    for _ in range(1 + MOST_ELEMENTS):  # the list itself is one
        if not waiting:
            return
        item = waiting.pop()
        if isinstance(item, list | tuple):
            waiting.extend(reversed(item[:MOST_ELEMENTS]))
        elif item is not None and item != "":
            yield item


def text(value: Any) -> str | None:
    """The value as text: a text is itself, a number its shortest decimal form; a flag or an object is none."""
    if type(value) is str:
        return value
    found = number(value)
    return None if found is None else written(found)


def written(value: Number) -> str:
    """A number as digits, without an exponent."""
    return str(value) if type(value) is int else format(value, "f")


def storable(value: str) -> bool:
    """Whether a database takes the text: no NUL, no half of a surrogate pair."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


class _Folds(dict[str, str]):
    """The folds of the texts met last: every condition of a set asks for the same ones, and they are dear."""

    room = MOST_FOLDED

    def __missing__(self, value: str) -> str:
        found = normalize("NFC", normalize("NFD", _few_marks(value)).casefold())
        self.room -= len(value) + len(found) + 100
        if self.room < 0:
            self.clear()
            self.room = MOST_FOLDED
        self[value] = found
        return found


def _few_marks(value: str) -> str:
    encoded = value.encode(errors="surrogatepass")
    if not _TOO_MANY_MARKS.search(encoded):
        return value
    return str(_TOO_MANY_MARKS.sub(rb"\1", encoded).decode(errors="surrogatepass"))


def composed(value: str) -> str:
    """The NFC form; of the marks over one letter the first ones."""
    return normalize("NFC", _few_marks(value))


_folds = _Folds()


def fold(value: str) -> str:
    """The form in which texts that differ in case or Unicode form alone are the same; of a long one the beginning."""
    looked_at = value[:MOST_TEXT]
    return looked_at.lower() if looked_at.isascii() else _folds[looked_at]


def moment(value: Any, zone: tzinfo = UTC) -> datetime | None:
    """The moment of an ISO 8601 date (its midnight) or time; without an offset it is local to `zone`."""
    return _moment(value, zone) if type(value) is str and len(value) <= 40 else None


@lru_cache(maxsize=8_192)
def _moment(value: str, zone: tzinfo) -> datetime | None:
    if not INSTANT.fullmatch(value):
        return None
    try:
        found = datetime.fromisoformat(value)
        found = found if found.tzinfo else found.replace(tzinfo=zone)
        return found.astimezone(zone) if 1 < found.year < 9999 else None
    except (ValueError, OverflowError):
        return None


def instant(value: Any, zone: tzinfo = UTC) -> int | None:
    """Epoch milliseconds of a moment."""
    found = moment(value, zone)
    return None if found is None else round(found.timestamp() * 1000)


def day(value: Any, zone: tzinfo = UTC) -> date | None:
    """The day of a moment in the zone."""
    found = moment(value, zone)
    return None if found is None else found.date()
