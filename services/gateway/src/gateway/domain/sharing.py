"""The law: an answer is shareable only with an edge that proved, in this very request, that it keys by all that the answer
depends on. Whoever proves nothing, or something else, gets a private one.

An edge asks in one of two ways: for the base, as a stranger; or for what those see who have the codes and facts it names,
of the mask it knows.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.domain.dimensions import OWN, Seen, audience
from gateway.domain.signing import Ring
from gateway.domain.targeting import Plan

FORM, BASE = "mask1", "base"


class Proof(NamedTuple):
    """What an edge says that it keys by: a mask and the values in it; for the base, BASE and nothing. `key_id`: its key."""

    mask: str
    audience: str
    key_id: str

    @property
    def base(self) -> bool:
        """Whether it asks for what a stranger sees."""
        return self.mask == BASE


def said(mask: str, audience: str, key: str, url: str) -> str:
    """What an edge signs: how it keys this request with this API key."""
    return f"{FORM}|{mask}|{audience}|{key}|{url}"


def proof(ring: Ring, *, key_id: str, mask: str, audience: str, signature: str, key: str, url: str) -> Proof | None:
    """The proof of a request, when it is genuine."""
    if not ring.genuine(key_id, said(mask, audience, key, url), signature) or (mask == BASE and audience):
        return None
    return Proof(mask, audience, key_id)


def shareable(plan: Plan, seen: Seen, proven: Proof | None) -> bool:
    """See the module. What no edge can key by is nobody's to share; what has too many codes is shared among strangers."""
    if proven is None or not plan.keyed:
        return False
    if not proven.base and (plan.mask.startswith(OWN) or proven.mask != plan.mask):
        return False
    return proven.audience == audience(plan.dimensions, seen)
