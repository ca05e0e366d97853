"""Called by the worker. Computes the shadow plans for everybody, page by page, then swaps them in.

The pages evaluate the whole rule set, so they leave every row as a live batch would; progress is saved per page, and
a crash resumes there. The swap is one transaction: plans, memberships, transitions and the new release.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from chassis.db import Tx
from chassis.service import repeat

from segment_svc import definitions, store
from segment_svc.definitions import Rules
from segment_svc.deps import Deps
from segment_svc.domain.transition import Transition
from segment_svc.flows.apply_events import catch_up, settle, sound
from segment_svc.flows.quarantine import guarded, patient
from segment_svc.telemetry import BACKFILL

PAGE = 1000
IDLE_S = 0.2
CLAIM = "SELECT * FROM backfill WHERE status = 'running' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
HAS_BIT = "CASE WHEN octet_length(p.atoms) > $4::int / 8 THEN get_bit(p.atoms, $4::int) = 1 ELSE false END"
# Statements of store.move_all.
ENTER = f"""WITH page AS (
        SELECT p.profile FROM profile p
        WHERE p.profile > $2 AND {HAS_BIT} AND p.merged_into IS NULL
          AND NOT EXISTS (SELECT 1 FROM membership m WHERE m.profile = p.profile AND m.segment_id = $1)
        ORDER BY p.profile LIMIT $3
    ), came AS (
        INSERT INTO membership (profile, segment_id, since, cause, definition_version)
        SELECT profile, $1, $5, 'definition', $6 FROM page RETURNING profile
    ) SELECT profile FROM came ORDER BY profile"""  # noqa: S608 - constants
LEAVE = f"""WITH page AS (
        SELECT m.profile FROM membership m JOIN profile p USING (profile)
        WHERE m.segment_id = $1 AND m.profile > $2 AND NOT ({HAS_BIT}) ORDER BY m.profile LIMIT $3
    ), gone AS (
        DELETE FROM membership m USING page WHERE m.segment_id = $1 AND m.profile = page.profile RETURNING m.profile
    ) SELECT profile FROM gone ORDER BY profile"""  # noqa: S608 - constants


async def step(deps: Deps) -> bool:
    """Do one page of the running job, or its swap when no page is left; False when there is no job."""
    job = await patient(deps, lambda wary: _page(deps, wary))
    if job is not None:
        deps.relay.wake()
        if job.complete:
            await guarded(deps, lambda: swap(deps, job.id))
    return job is not None


@dataclass(frozen=True, slots=True)
class Job:
    """The job a page was done of; `complete`: there was none left to do."""

    id: int
    complete: bool


async def _page(deps: Deps, wary: bool) -> Job | None:
    async with deps.db.tx() as tx:
        rules = await deps.rulebook.current(tx)
        job = await tx.fetchrow(CLAIM)
        if job is None:
            return None
        now = deps.clock.now_ms()
        keys = await store.page(tx, job["cursor"], PAGE)
        if keys:
            rows = [r for r in (await store.load(tx, keys, postponing=now)).values() if r.merged_into is None]
            rows = await sound(tx, rows, rules, now=now) if wary else rows
            moves = catch_up(rows, rules, now)
            await settle(tx, rows, rules, now=now, moves=moves)
            await tx.execute(
                "UPDATE backfill SET cursor = $2, done = done + $3 WHERE id = $1", job["id"], keys[-1], len(keys)
            )
            BACKFILL.set((job["done"] + len(keys)) / max(job["total"], 1))
    return Job(job["id"], complete=not keys)


async def swap(deps: Deps, job_id: int) -> None:
    """Let the shadow plans serve; members of the old definition that no longer match leave with cause `definition`."""
    now = deps.clock.now_ms()
    async with deps.db.tx() as tx:
        await definitions.lock(tx)
        job = await tx.fetchrow("SELECT * FROM backfill WHERE id = $1 AND status = 'running' FOR UPDATE", job_id)
        if job is None:  # replaced by a newer change meanwhile
            return
        rules = await deps.rulebook.current(tx)
        shadows = await tx.fetch("SELECT segment_id, version, atoms FROM plan WHERE NOT live AND cause IS NULL")
        await definitions.publish(tx, [f"segment:{rules.keys[s['segment_id']]}" for s in shadows], now=now)
        entered = left = 0
        for shadow in shadows:
            came, went = await _move_members(tx, shadow, rules, now=now)
            entered, left = entered + came, left + went
        await tx.execute("DELETE FROM plan WHERE live AND segment_id = ANY($1)", [s["segment_id"] for s in shadows])
        await tx.execute("UPDATE plan SET live = true WHERE NOT live AND cause IS NULL")
        await tx.execute(
            "UPDATE backfill SET status = 'done', finished_at = $2, entered = $3, exited = $4 WHERE id = $1",
            job_id,
            now,
            entered,
            left,
        )
    deps.relay.wake()


async def _move_members(tx: Tx, shadow: Any, rules: Rules, *, now: int) -> tuple[int, int]:
    """Bring the member list of one segment to what its new bits say; answers how many entered and left.

    A segment that needs the request has no list.
    """
    segment_id, version, key = shadow["segment_id"], shadow["version"], rules.keys[shadow["segment_id"]]
    if not rules.ruleset.is_durable(key + definitions.SHADOW_MARK):
        return 0, await store.empty(tx, segment_id, version=version, cause="definition", now=now)
    move, atom = Transition("", segment_id, now, True, "definition", version, None), shadow["atoms"][0]
    entered = await store.move_all(tx, ENTER, move, key, atom, now, version)
    return entered, await store.move_all(tx, LEAVE, move._replace(entered=False), key, atom)


async def run(deps: Deps, stop: asyncio.Event) -> None:
    """Work on backfills until `stop` is set."""
    await repeat(lambda: step(deps), stop, name="backfill", idle_s=IDLE_S, health=deps.health)
