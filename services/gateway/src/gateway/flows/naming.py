"""Called when somebody saves a block or a cart rule: whether it may name the segments that it names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import httpx
from chassis.auth import Actor
from chassis.http import json_of
from chassis.problems import Problem
from conditions.context import SAID_BY_ANYBODY

from gateway.adapters.upstreams import CONTENT, PROMO, SEGMENT, unavailable
from gateway.deps import Deps
from gateway.domain.said import Named

MOST = 600  # keys in a question; a block or rule has no more
PLACES = {CONTENT: "audience", PROMO: "segments"}
SLUGS = {CONTENT: "content-invalid", PROMO: "rule-invalid"}
SAYS_SO = "it depends on what a page says of itself ({}), which is no reason for a price"


async def check(deps: Deps, owner: str, raw: bytes, *, actor: Actor) -> None:
    """Raises Problem 422 with pointers for a rule that names what holds because a page says so, and for names that who has some
    websites alone cannot see, or that there are not: he is told the same; 503 while nobody can say.
    """
    named = _named(owner, await json_of(raw, actor.subject))
    keys = {key for _, key in named}
    if not named or len(keys) > MOST or (owner == CONTENT and not actor.websites):  # the service refuses so many
        return
    fields = await seen(deps, keys, actor)
    errors = []
    for pointer, key in named:
        if actor.websites and key not in fields:
            errors.append({"pointer": pointer, "detail": "there is no such segment"})
        elif owner == PROMO and (said := SAID_BY_ANYBODY & fields.get(key, frozenset())):
            errors.append({"pointer": pointer, "detail": SAYS_SO.format(", ".join(sorted(said)))})
    if errors:
        raise Problem(SLUGS[owner], 422, "It cannot be for these segments", errors=errors)


async def seen(deps: Deps, keys: Collection[str], reader: Actor) -> dict[str, frozenset[str]]:
    """The fields of a request that each segment of these keys depends on; none of one that the reader cannot see, or that is not
    there. Raises Problem 503.
    """
    found: dict[str, frozenset[str]] = {}
    try:
        for start in range(0, len(keys), MOST):
            asked = {"keys": sorted(keys)[start : start + MOST]}
            said = await deps.merchants.json(SEGMENT, "POST", "/v1/segments/named", Named, json=asked, actor=reader)
            found |= {segment["key"]: frozenset(segment["request_fields"]) for segment in said["segments"]}
    except httpx.HTTPError:
        raise unavailable() from None
    return found


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
