"""Reading a cart, strictly."""

from __future__ import annotations

import re

import msgspec
from chassis.problems import Problem, not_json
from conditions.read import step

from promo_svc.domain import cart
from promo_svc.wire import CURRENCIES

_decode = msgspec.json.Decoder(cart.Request).decode
MOST_BODY = 256 * 1024  # what rules may have to look at for one cart
PLACE = re.compile(r"(?P<detail>.*?)(?: - at (?P<of_name>`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
FIELD = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`", re.DOTALL)


def read_cart(body: bytes) -> cart.Request:
    """The cart of a body. Raises Problem 400 for what is not JSON, 413, 422 with pointers for what cannot be evaluated."""
    if len(body) > MOST_BODY:
        raise Problem("body-too-large", 413, "The cart is too large", detail=f"It has at most {MOST_BODY} bytes")
    try:
        asked = _decode(body)
    except msgspec.ValidationError as error:
        raise _refused([place(str(error))]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise not_json() from None
    faults = cart.faults(asked, CURRENCIES)
    if faults:
        raise _refused(faults[:50])
    return asked


def _refused(faults: list[tuple[str, str]]) -> Problem:
    errors = [{"pointer": pointer, "detail": detail} for pointer, detail in faults]
    return Problem("invalid-request", 422, "The cart is not valid", errors=errors)


def place(message: str) -> tuple[str, str]:
    """(pointer, detail) of what msgspec says of a body; a field unknown or missing is pointed at itself.

    The key of a map is not in its words: a value in a map, and a key that is wrong, are pointed at as the map.
    """
    found = PLACE.fullmatch(message)
    detail, path = (found["detail"], found["path"] or "") if found else (message, "")
    pointer = "".join(f"/{name or index}" for name, index in STEP.findall(path.partition("[...]")[0]))
    named = FIELD.fullmatch(detail)
    return (pointer + step(named[1]) if named else pointer), detail[:300]
