"""Requests of somebody nobody knows, and what services say of a shop with one version of everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from gateway.adapters.keys import Keys
from gateway.adapters.tokens import CustomerTokens
from gateway.domain.answer import Answer
from gateway.domain.dimensions import Seen
from gateway.domain.membership import Known
from gateway.domain.release import Release
from gateway.domain.signing import Ring, Rings
from gateway.domain.targeting import Plan
from gateway.flows.decide import Decider, decided
from gateway.flows.people import Who
from gateway.lanes.decisions import Decisions
from gateway.lanes.request import Reader, Request

DEFAULT = [{"key": "top:default", "content": "default"}]  # what the slot `top` shows of which nothing else is known
RING = Ring("1:" + "s" * 32)
RINGS = Rings(RING, RING, RING, RING, b"front", {})
NOBODYS = CustomerTokens("", issuer="", audience="")
KEYS = Keys(json.dumps([{"id": "k", "sha256": hashlib.sha256(b"k").hexdigest(), "kind": "publishable"}]))


class Unlimited:
    """Counts nothing."""

    def take(self, *_: Any, **__: Any) -> None:
        """Nobody is refused."""

    take_of = take_events = take_bytes = take


def decisions(decider: Decider, keys: Keys) -> Decisions:
    """As the gateway has them, for who has a key of `keys`."""
    none: Any = None
    limiter: Any = Unlimited()
    return Decisions(decider, keys, Reader(keys, RINGS, NOBODYS), limiter, rings=RINGS, probes=none)


def asked(query: bytes, method: str = "GET", **fields: bytes) -> Request:
    """A request for a decision."""
    named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return Request(method, b"/v1/decisions", query, {b"x-api-key": b"k", **named}, "127.0.0.1")


def slot(*locales: str, boundaries: Sequence[int] = ()) -> dict[str, Any]:
    """What content-svc says of a slot for everybody."""
    common = {"websites": [], "default": {"*": "default"}}
    everybody = {"websites": [], "segments": [], "groups": [], "boundaries": list(boundaries)}
    return {**common, "audiences": [everybody], "locales": ["*", *locales]}


def release(version: int, **slots: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Definitions, content and promotions of a version, as `Knowledge.swap` takes them."""
    common: dict[str, Any] = {"version": version, "changes": []}
    return (
        {**common, "empty": {"visitor": "", "customer": ""}, "segments": []},
        {**common, "slots": slots},
        {**common, "rules": [], "segments": []},
    )


async def stranger_asks(decider: Decider, *slots: str, locale: str = "*") -> Answer:
    """The answer for a stranger of whom nothing else is known."""
    now_ms = decider.clock.now_ms()

    def ask(release: Release) -> tuple[Plan, Known, Seen]:
        known = Who().known(release.definitions, now_ms)
        return release.plan("main", sorted(slots), locale), known, known.seen

    *_, answer = await decided(decider, ask, now_ms)
    return answer
