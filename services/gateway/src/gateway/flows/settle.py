"""Called when somebody has saved something: who saved it is told so when it is what is answered here, and the edges have
forgotten what was before. So it holds whatever becomes of this gateway then.
"""

from __future__ import annotations

import asyncio

import httpx
from chassis.asking import SHORT

from gateway.adapters.upstreams import CONTENT, PROMO, SEGMENT
from gateway.deps import Deps
from gateway.domain.release import OF_CONTENT, OF_PROMO, OF_SEGMENTS
from gateway.domain.said import Head

MOST_S, LOOK_S = 1.0, 0.01
KINDS = {SEGMENT: OF_SEGMENTS, CONTENT: OF_CONTENT, PROMO: OF_PROMO}


async def settle(deps: Deps, owner: str) -> None:
    """Wait for it, about MOST_S at most: what an edge that is away has to forget stays owed."""
    known, kind, began_s = deps.decider.knowledge, KINDS[owner], asyncio.get_running_loop().time()
    try:
        said = await deps.merchants.json(owner, "GET", "/v1/head", Head, most_s=MOST_S, most_bytes=SHORT)
    except httpx.HTTPError:
        return
    known.hear(kind, said["version"], began_s)
    while asyncio.get_running_loop().time() < began_s + MOST_S:
        if not known.is_behind(kind) and not deps.purger.behind():
            break
        await asyncio.sleep(LOOK_S)
