"""Called when somebody saves a block or a cart rule: whether it may name the segments that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from chassis.auth import Actor
from chassis.http import read_json
from chassis.problems import Problem
from conditions.context import SAID_BY_ANYBODY

from gateway.adapters.upstreams import CONTENT, PROMO, SEGMENT, unavailable
from gateway.deps import Deps

PLACES = {CONTENT: "audience", PROMO: "segments"}
SLUGS = {CONTENT: "content-invalid", PROMO: "rule-invalid"}
SAYS_SO = "it depends on what a page says of itself ({}), which is no reason for a price"


async def check(deps: Deps, owner: str, raw: bytes, *, actor: Actor) -> None:
    """Raises Problem 422 with pointers for a rule that names what holds because a page says so, and for names that who has some
    websites alone cannot see, or that there are not: he is told the same; 503 while nobody can say.
    """
    named = _named(owner, read_json(raw))
    if not named or (owner == CONTENT and not actor.websites):
        return
    try:
        found = await deps.merchants.json(SEGMENT, "GET", "/v1/segments", actor=actor)
    except httpx.HTTPError:
        raise unavailable() from None
    fields = {segment["key"]: SAID_BY_ANYBODY.intersection(segment["request_fields"]) for segment in found["segments"]}
    errors = []
    for pointer, key in named:
        if actor.websites and key not in fields:
            errors.append({"pointer": pointer, "detail": "there is no such segment"})
        elif owner == PROMO and fields.get(key):
            errors.append({"pointer": pointer, "detail": SAYS_SO.format(", ".join(sorted(fields[key])))})
    if errors:
        raise Problem(SLUGS[owner], 422, "It cannot be for these segments", errors=errors)


def _named(owner: str, body: Any) -> Sequence[tuple[str, str]]:
    """(pointer, key) of the segments in a body. What is not as it should be is refused by the service."""
    whom = body.get(PLACES[owner]) if isinstance(body, Mapping) else None
    if not isinstance(whom, Mapping):
        return []
    return [
        (f"/{PLACES[owner]}/{part}/{n}", key)
        for part in ("any_of", "all_of", "none_of")
        if isinstance(keys := whom.get(part), list)
        for n, key in enumerate(keys)
        if isinstance(key, str)
    ]
