"""Called by GET /admin/v1/kills: what is killed is everybody's, but a name is told only to who may see what has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from chassis.auth import Actor

from gateway.adapters.upstreams import unavailable
from gateway.deps import Deps
from gateway.flows.kill import OWNERS


async def kills_seen(deps: Deps, reader: Actor) -> list[Mapping[str, Any]]:
    """For who has some websites alone, what their owners show him; one after the other, so that nobody waits for a connection.

    Raises Problem 503 when an owner cannot be asked.
    """
    killed: Sequence[Mapping[str, Any]] = await deps.killer.listed()
    return [kill for kill in killed if not reader.websites or await _is_seen(deps, kill["kind"], kill["key"], reader)]


async def _is_seen(deps: Deps, kind: str, key: str, reader: Actor) -> bool:
    owner, noun = OWNERS[kind]
    try:
        answer = await deps.merchants.send(owner, "GET", f"/v1/{noun}/{key}", actor=reader)
    except httpx.HTTPError:
        raise unavailable() from None
    if answer.status_code not in (200, 404):
        raise unavailable()
    return answer.is_success
