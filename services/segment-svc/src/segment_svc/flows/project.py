"""Called by the worker's clock. Writes every audience document to Redis again when it has lost them.

MARK stands in Redis as long as the documents do. Whoever finds it missing claims it for a while, and renews the claim
with every page: a crash lets another worker take over, and a second loss is noticed.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from chassis.cache import VersionedWriter
from chassis.service import repeat
from chassis.telemetry import get_logger

from segment_svc import store
from segment_svc.deps import Deps
from segment_svc.telemetry import REWRITTEN

MARK = "aud:complete"
PAGE, CLAIM_S, IDLE_S = 1000, 30, 1.0
log = get_logger("project")


async def project(deps: Deps, redis: Any) -> int:
    """Rewrite everything if it is missing and nobody else does; answers how many people were written."""
    if await redis.exists(MARK) or not await redis.set(MARK, uuid.uuid4().hex, nx=True, ex=CLAIM_S):
        return 0
    writer, after, total = VersionedWriter(redis), "", 0
    while True:
        async with deps.db.tx() as tx:
            found = await store.documents(tx, after, PAGE)
            names = await store.identities(tx, [key for key, _, _ in found])
        await writer.put_many([(f"aud:{name}", version, body) for key, version, body in found for name in names[key]])
        if not found:
            break
        after, total = found[-1][0], total + len(found)
        REWRITTEN.inc(len(found))
        deps.health.beat("project")
        if not await redis.set(MARK, "claimed", xx=True, ex=CLAIM_S):
            return total
    await redis.set(MARK, "complete", xx=True)
    log.info("documents_rewritten", profiles=total)
    return total


async def run(deps: Deps, redis: Any, stop: asyncio.Event) -> None:
    """Look once a second until `stop` is set."""

    async def work() -> bool:
        await project(deps, redis)
        return False

    await repeat(work, stop, name="project", idle_s=IDLE_S, health=deps.health)
