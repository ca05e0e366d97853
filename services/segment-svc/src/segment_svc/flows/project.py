"""Called by the worker's clock. Writes every audience document to Redis again when some of them are not there, or wrong.

MARK stands in Redis as long as all documents do: it names the era of the database and the run of the server. A server that was
started again, or took over, may have lost some or have old ones; a database that went back wrote ones that it knows nothing of.
Whoever finds another mark claims it for a while, under a name that nobody else has, and renews the claim with every page: a crash
lets another worker take over. Whoever was slow, and finds a claim that is not theirs, or none, gives up: Redis may have been
emptied since they began.
A server that may drop documents for room never gets the mark, nor does one that is not the home of the documents.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

from chassis.cache import VersionedWriter, may_evict, raise_to, replace, run_of
from chassis.db import Tx
from chassis.publishing import SEGMENT_VERSION
from chassis.service import FOLLOW_S, repeat
from chassis.telemetry import get_logger
from redis.exceptions import RedisError

from segment_svc import definitions, handover, identities, store
from segment_svc.deps import Deps
from segment_svc.telemetry import REWRITTEN
from segment_svc.wire import MARK, dated

CLAIM, POLICY, HOME = "claimed:", "redis policy", "redis home"  # no reader takes a claim for an era
ELSEWHERE = "documents are handed to another Redis than the one that is reached"
# A claim that has no end is nobody's.
CLAIMED = """local found = redis.pcall('GET', KEYS[1])
if found == ARGV[1] then return 0 end
if type(found) == 'string' and found:match('^claimed:') and redis.call('PTTL', KEYS[1]) > 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1"""
PAGE, CLAIM_S, IDLE_S, PART = 1000, 30, 1.0, "redis project"
log = get_logger("project")


async def project(deps: Deps, redis: Any) -> int:
    """Rewrite everything if it is not whole and nobody else does; answers how many people were written."""
    evicts = "maxmemory-policy lets documents be evicted: it must be noeviction" if await may_evict(redis) else None
    deps.health.set(POLICY, evicts)
    if evicts:
        await handover.doubt(redis, evicts)
        return 0
    run = await run_of(redis)
    era = await _at_home(deps, redis, run)
    deps.health.set(HOME, ELSEWHERE if era is None else None)
    if era is None:
        await handover.doubt(redis, ELSEWHERE)
        return 0
    whole, claim = f"{era} {run}", CLAIM + uuid.uuid4().hex
    if not await redis.eval(CLAIMED, 1, MARK, whole, claim, CLAIM_S):
        return 0
    total = 0
    async for written in _rewritten(deps, redis, era, run):
        total += written
        deps.health.beat(PART)
        if await _at_home(deps, redis, run) != era or not await replace(redis, MARK, claim, claim, for_s=CLAIM_S):
            return total
    # If it is another one by now, what was written before may be lost again.
    if (
        await run_of(redis) == run
        and await _at_home(deps, redis, run) == era
        and await replace(redis, MARK, claim, whole)
    ):
        log.info("documents_rewritten", profiles=total)
    return total


async def _at_home(deps: Deps, redis: Any, run: str) -> int | None:
    """The era, if all documents are to be at this run of Redis."""
    async with deps.db.tx() as tx:
        return await definitions.era(tx) if await handover.keep(tx, redis, run) else None


async def _rewritten(deps: Deps, redis: Any, era: int, run: str) -> AsyncIterator[int]:
    """Write a page of people after the other; answers how many each had. Raises NotAtHome."""
    writer, after = VersionedWriter(redis), ""
    while True:
        async with deps.db.tx() as tx:
            found = await store.documents(tx, after, PAGE)
            names = await identities.names_of(tx, [key for key, _, _ in found])
        if not found:
            return
        entries = [(f"aud:{name}", dated(era, v), body) for key, v, body in found for name in names[key]]
        if not await writer.put_many(entries) <= {run}:
            raise handover.NotAtHome
        after = found[-1][0]
        REWRITTEN.inc(len(found))
        yield len(found)


async def go_on(deps: Deps, redis: Any) -> None:
    """A version is told of after it was committed, and a document handed on after its row was: a database in which they are not
    went back. From now on no document counts that was written until then.
    """
    async with deps.db.tx() as tx:
        version = await definitions.head(tx)
    try:
        seen, token = await raise_to(redis, SEGMENT_VERSION, version), await handover.token_of(redis)
    except RedisError:  # nobody says; it is asked again
        return
    async with deps.db.tx() as tx:
        if await _has(tx, seen, token):
            return
    before = await handover.doubt(redis, "the database went back")
    async with deps.db.tx() as tx:
        await tx.execute(definitions.ALONE)
        if await _has(tx, seen, token):  # another process was faster
            return
        await handover.adopt(tx, token)
        era = await definitions.go_on_after(tx, seen, before)
    log.error("database_went_back", seen=seen, era=era)


async def _has(tx: Tx, seen: int, token: bytes) -> bool:
    return await definitions.head(tx) >= seen and await handover.known(tx, token)


async def run(deps: Deps, redis: Any, stop: asyncio.Event) -> None:
    """Look once a second until `stop` is set."""

    async def work() -> bool:
        await go_on(deps, redis)
        await project(deps, redis)
        return False

    await repeat(work, stop, name=PART, idle_s=IDLE_S, health=deps.health, most_s=FOLLOW_S)
