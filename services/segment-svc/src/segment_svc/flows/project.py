"""Called by the worker's clock. Writes every audience document to Redis again when some of them are not there, or wrong.

MARK stands in Redis as long as all documents do: it names the era of the database and the run of the server. A server that was
started again, or took over, may have lost some or have old ones; a database that went back wrote ones that it knows nothing of.
Whoever finds another mark claims it for a while, and renews the claim with every page: a crash lets another worker take over.
"""

from __future__ import annotations

import asyncio
from typing import Any

from chassis import outbox
from chassis.cache import VersionedWriter, run_of
from chassis.publishing import SEGMENT_VERSION, told
from chassis.service import repeat
from chassis.telemetry import get_logger

from segment_svc import definitions, identities, store
from segment_svc.deps import Deps
from segment_svc.telemetry import REWRITTEN
from segment_svc.wire import MARK, dated

CLAIM, HANDED = "claimed", "aud:handed"
CLAIMED = """local found = redis.call('GET', KEYS[1])
if found == ARGV[1] or found == ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1"""
PAGE, CLAIM_S, IDLE_S = 1000, 30, 1.0
log = get_logger("project")


async def project(deps: Deps, redis: Any) -> int:
    """Rewrite everything if it is not whole and nobody else does; answers how many people were written."""
    async with deps.db.tx() as tx:
        era = await definitions.era(tx)
    whole = f"{era} {await run_of(redis)}"
    if not await redis.eval(CLAIMED, 1, MARK, whole, CLAIM, CLAIM_S):
        return 0
    writer, after, total = VersionedWriter(redis), "", 0
    while True:
        async with deps.db.tx() as tx:
            found = await store.documents(tx, after, PAGE)
            names = await identities.names_of(tx, [key for key, _, _ in found])
        entries = [(f"aud:{name}", dated(era, v), body) for key, v, body in found for name in names[key]]
        await writer.put_many(entries)
        if not found:
            break
        after, total = found[-1][0], total + len(found)
        REWRITTEN.inc(len(found))
        deps.health.beat("project")
        if not await redis.set(MARK, CLAIM, xx=True, ex=CLAIM_S):
            return total
    if whole == f"{era} {await run_of(redis)}":  # else what was written before may be lost again
        await redis.set(MARK, whole, xx=True)
    log.info("documents_rewritten", profiles=total)
    return total


async def go_on(deps: Deps, redis: Any) -> None:
    """A version is told of after it was committed, and a document handed on after its row was: a database in which they are not
    went back. From now on no document counts that was written until then.
    """
    seen, handed = await told(redis, SEGMENT_VERSION) or 0, await told(redis, HANDED) or 0
    async with deps.db.tx() as tx:
        if await definitions.head(tx) >= seen and await outbox.newest(tx) >= handed:
            return
    mark = str(await redis.get(MARK) or b"", "ascii", "replace").split(" ")[0]
    await redis.set(MARK, mark)  # of no run: until all are written anew, nobody is known
    async with deps.db.tx() as tx:
        await definitions.alone(tx, deps.clock)
        await outbox.go_on_after(tx, handed)
        era = await definitions.go_on_after(tx, seen, int(mark) if mark.isdigit() else 0)
    log.error("database_went_back", seen=seen, era=era)


async def run(deps: Deps, redis: Any, stop: asyncio.Event) -> None:
    """Look once a second until `stop` is set."""

    async def work() -> bool:
        await go_on(deps, redis)
        await project(deps, redis)
        return False

    await repeat(work, stop, name="project", idle_s=IDLE_S, health=deps.health)
