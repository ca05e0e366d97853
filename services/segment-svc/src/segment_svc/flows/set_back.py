"""Called by the worker's clock. Notices that time went back, and settles anew whoever was settled in what is the future again.

Workers go by the database's clock (definitions.ClockOff). If that was ahead, flips which are yet to come were taken for past,
and nothing is due before them. An index that finds such people would cost something at every write: instead it is kept how far
time had come, and when it is less than that, everybody is looked at once.
"""

from __future__ import annotations

import asyncio
from functools import partial

from chassis.clock import SKEW_MS
from chassis.service import repeat
from chassis.telemetry import get_logger

from segment_svc import store
from segment_svc.deps import Deps
from segment_svc.flows.quarantine import patient
from segment_svc.flows.settle_many import settle_many

PAGE, IDLE_S = 1000, 1.0
REACH = "UPDATE reached SET at = greatest(at, $1) RETURNING at"
RIGHT = "UPDATE reached SET at = $2 WHERE at = $1"
# Who could not be evaluated is looked at again an hour later.
NEXT = f"""SELECT profile, settled_at > $2 OR coalesce(not_before > $2 + {store.LATER_MS}, false) AS ahead FROM profile
    WHERE profile > $1 ORDER BY profile LIMIT $3"""  # noqa: S608 - constants
# What is recorded of a future that did not come to be has happened by now, and is over.
REDATE = (
    "UPDATE transition SET at = $2 WHERE profile = ANY($1::text[]) AND at > $2",
    "UPDATE membership SET since = $2 WHERE profile = ANY($1::text[]) AND since > $2",
)
log = get_logger("set_back")


async def look(deps: Deps) -> int:
    """Settle anew whoever was settled later than clocks may differ by, if time went back; answers how many that were."""
    async with deps.db.tx() as tx:
        await deps.rulebook.current(tx)
        now = deps.clock.now_ms()
        reached = await tx.fetchval(REACH, now)
    if reached <= now + SKEW_MS:
        return 0
    after, total = "", 0
    while (page := await patient(deps, partial(_page, deps, after))) is not None:
        after, total = page[0], total + page[1]
        deps.relay.wake()
        deps.health.beat("set back")
    async with deps.db.tx() as tx:
        await tx.execute(RIGHT, reached, now)
    log.error("clock_was_set_back", by_ms=reached - now, people=total)
    return total


async def _page(deps: Deps, after: str, wary: bool) -> tuple[str, int] | None:
    """(the last of the next people in key order, how many of them were settled anew); None when there is nobody left."""
    async with deps.db.tx() as tx:
        rules = await deps.rulebook.current(tx)
        found = await tx.fetch(NEXT, after, deps.clock.now_ms() + SKEW_MS, PAGE)
        keys = [r["profile"] for r in found if r["ahead"]]
        rows = await store.load(tx, keys, postponing=deps.clock.now_ms())
        now = rules.instant(deps.clock, rows.values())
        done = await settle_many(tx, keys, rows, rules, now=now, wary=wary)
        for statement in REDATE:
            await tx.execute(statement, done, now)
    if len(done) < len(keys):
        return done[-1], len(done)
    return (found[-1]["profile"], len(done)) if found else None


async def run(deps: Deps, stop: asyncio.Event) -> None:
    """Look once a second until `stop` is set."""

    async def work() -> bool:
        await look(deps)
        return False

    await repeat(work, stop, name="set back", idle_s=IDLE_S, health=deps.health)
