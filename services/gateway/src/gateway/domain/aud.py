"""The audience in the URL, for caches that can key by nothing else: `aud=base.<website>` asks for what a stranger sees there, a
signed one for what those see who have the values it says.

Whoever has a signed one can read with it what is for these people. So it says nothing of who has it, is of one website and one
plan, and ends with its minute, the same for all who have the values.
"""

from __future__ import annotations

import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from gateway.domain.answer import encode
from gateway.domain.dimensions import OWN, Seen, given, values
from gateway.domain.signing import Ring
from gateway.domain.targeting import Plan

PARAMETER, FORM, BASE = "aud", "1", "base."
LIFE_MIN, PRICE_MIN = 10, 1  # of those that steer a price, as in a context cookie
MOST = 1500  # characters: a query has 2000
SIGNED = re.compile(
    rf"{FORM}\.(?P<key>[a-z0-9]{{1,16}})\.(?P<minute>[0-9]{{1,10}})\.(?P<plan>[0-9a-f]{{16}})"
    r"\.(?P<values>[A-Za-z0-9_-]*)\.(?P<signature>[A-Za-z0-9_-]{43})"
)
_values = msgspec.json.Decoder(dict[str, str]).decode


class Aud(NamedTuple):
    """What a URL says: the values in which one differs from a stranger, by name, by which plan that was found, and until when
    (epoch ms) it may be so.

    Who is known and does not differ has one too: by another plan he may.
    """

    values: Mapping[str, str]
    plan: str
    until: int | None = None

    def left_s(self, now_ms: int) -> float:
        """For how many seconds it may still be so."""
        return math.inf if self.until is None else (self.until - now_ms) // 1000


STRANGERS = Aud({}, "")


def read(ring: Ring, text: str, website: str, *, now_ms: int) -> Aud | None:
    """None for what is forged, over, or of another website."""
    if text == BASE + website:
        return STRANGERS
    found = SIGNED.fullmatch(text)
    if found is None or not ring.genuine(found["key"], _signed(website, text.rpartition(".")[0]), found["signature"]):
        return None
    until = int(found["minute"]) * 60_000
    return None if until <= now_ms else Aud(_values(urlsafe_b64decode(found["values"] + "==")), found["plan"], until)


def write(ring: Ring, plan: Plan, seen: Seen, *, minute: int) -> str | None:
    """What somebody who is known is to ask with until a minute (since the epoch); None when no URL can say it."""
    if plan.mask.startswith(OWN):
        return None
    found = values(plan.dimensions, seen)
    said = urlsafe_b64encode(encode(found)).decode().rstrip("=")
    text = f"{FORM}.{ring.newest}.{minute}.{_name(plan)}.{said}"
    text = f"{text}.{ring.signature(_signed(plan.website, text))}"
    return text if len(text) <= MOST else None


def seen_by(plan: Plan, aud: Aud, empty: int) -> Seen | None:
    """Who asks, with the bits of a stranger `empty`; None when the plan is another one than that of the URL."""
    if aud is STRANGERS:
        return Seen(empty)
    if aud.plan != _name(plan):
        return None
    seen = given(plan.dimensions, Seen(empty), aud.values)
    return seen if values(plan.dimensions, seen) == aud.values else None


def last_minute(now_ms: int, *, steering: bool, until_ms: int | None) -> int | None:
    """When what is found out now is to be found out again: a full minute (since the epoch), the same for many people.

    None for somebody of whom something changes before.
    """
    life = PRICE_MIN if steering else LIFE_MIN
    minute = (now_ms // 60_000 // life + 1) * life
    return minute if until_ms is None or minute * 60_000 <= until_ms else None


def _signed(website: str, text: str) -> str:
    return f"aud|{website}|{text}"


def _name(plan: Plan) -> str:
    """What tells a plan from one with other dimensions, or by which a code was begun anew."""
    return blake2b(f"{plan.website}|{plan.mask}|{plan.since}".encode(), digest_size=8).hexdigest()
