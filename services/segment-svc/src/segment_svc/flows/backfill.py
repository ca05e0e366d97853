"""Called by the worker. Computes the shadow plans for everybody, page by page, then swaps them in.

The pages evaluate the whole rule set, so they leave every row as a live batch would; progress is saved per page, and
a crash resumes there. The swap is one transaction: plans, memberships, transitions, the new release, and the beginning of
the job that waits (jobs.py), also for what refers to what was swapped and could not be computed with it. Who could not be
evaluated (`not_before`) stays where they were until somebody can: what their bits and document said of the old plans, they say
of the new ones, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from chassis import outbox
from chassis.db import Tx
from chassis.service import repeat

from segment_svc import definitions, identities, jobs, store, wire
from segment_svc.definitions import Rules
from segment_svc.deps import Deps
from segment_svc.domain.definition import spread
from segment_svc.domain.transition import Transition
from segment_svc.flows.meet import meet
from segment_svc.flows.quarantine import guarded, patient
from segment_svc.flows.settle_many import settle_many
from segment_svc.flows.sweep import settle_due, sweep
from segment_svc.telemetry import BACKFILL

PAGE, MOST_BYTES = (
    1000,
    8 << 20,
)  # of people; of their states, so that a page takes moments, and as much memory, whoever they are
IDLE_S, PART = 0.2, "postgres backfill"
CLAIM = "SELECT * FROM backfill WHERE status = 'running' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
OURS = "NOT live AND NOT waiting AND cause IS NULL AND segment_id = ANY($1::int[])"
NEXT = """SELECT profile FROM (
        SELECT profile, sum(octet_length(state)) OVER (ORDER BY profile) - octet_length(state) AS before FROM (
            SELECT profile, state FROM profile WHERE profile > $1 AND merged_into IS NULL ORDER BY profile LIMIT $2
        ) AS page
    ) AS counted WHERE before < $3 ORDER BY profile"""
HAS_BIT = "CASE WHEN octet_length(p.atoms) > $5::int / 8 THEN get_bit(p.atoms, $5::int) = 1 ELSE false END"
# Statements of store.move_all.
ENTER = f"""WITH page AS (
        SELECT p.profile, greatest(p.settled_at, $4) AS at FROM profile p
        WHERE p.profile > $2 AND {HAS_BIT} AND p.merged_into IS NULL
          AND NOT EXISTS (SELECT 1 FROM membership m WHERE m.profile = p.profile AND m.segment_id = $1)
        ORDER BY p.profile LIMIT $3
    ), came AS (
        INSERT INTO membership (profile, segment_id, since, cause, definition_version)
        SELECT profile, $1, at, 'definition', $6 FROM page RETURNING profile, since
    ) SELECT profile, since AS at FROM came ORDER BY profile"""  # noqa: S608 - constants
LEAVE = f"""WITH page AS (
        SELECT m.profile, greatest(p.settled_at, $4) AS at FROM membership m JOIN profile p USING (profile)
        WHERE m.segment_id = $1 AND m.profile > $2 AND NOT ({HAS_BIT}) ORDER BY m.profile LIMIT $3
    ), gone AS (
        DELETE FROM membership m USING page WHERE m.segment_id = $1 AND m.profile = page.profile RETURNING m.profile, page.at
    ) SELECT profile, at FROM gone ORDER BY profile"""  # noqa: S608 - constants
LEFT_OUT = """SELECT profile, version, atoms, document FROM profile
    WHERE not_before IS NOT NULL AND merged_into IS NULL AND profile > $1 ORDER BY profile LIMIT $2 FOR UPDATE"""
CARRY = """UPDATE profile AS p SET version = u.version, stamp = $5, atoms = u.atoms, document = u.document
    FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[]) AS u (profile, version, atoms, document)
    WHERE p.profile = u.profile"""


async def step(deps: Deps) -> bool:
    """Do one page of the running job, or its swap when no page is left; False when there is no job."""
    job = await patient(deps, lambda wary: _page(deps, wary))
    if job is not None:
        deps.relay.wake()
        if job.complete:
            await meet(deps)
            now = deps.clock.now_ms()
            while await sweep(deps, by=now):  # who fell due meanwhile must not enter after having left
                deps.health.beat(PART)
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
        keys = [r["profile"] for r in await tx.fetch(NEXT, job["cursor"], PAGE, MOST_BYTES)]
        found = await store.load(tx, keys, postponing=deps.clock.now_ms())
        now = rules.instant(deps.clock, found.values())
        done = await settle_many(tx, keys, found, rules, now=now, wary=wary)
        if done:
            await tx.execute(
                "UPDATE backfill SET cursor = $2, done = done + $3 WHERE id = $1", job["id"], done[-1], len(done)
            )
            BACKFILL.set((job["done"] + len(done)) / max(job["total"], 1))
    return Job(job["id"], complete=not keys)


async def swap(deps: Deps, job_id: int) -> None:
    """Let the shadow plans serve; members of the old definition that no longer match leave with cause `definition`."""
    async with deps.db.tx() as tx:
        now = await definitions.alone(tx, deps.clock)
        job = await tx.fetchrow("SELECT * FROM backfill WHERE id = $1 AND status = 'running' FOR UPDATE", job_id)
        if job is None:  # replaced by a newer change meanwhile
            return
        rules = await deps.rulebook.current(tx)
        while await settle_due(tx, rules, deps.clock, by=now, wary=True):
            pass  # who fell due since the sweep: what their bits say is over
        shadows = await tx.fetch(f"SELECT segment_id, version, atoms FROM plan WHERE {OURS}", job["segments"])  # noqa: S608
        tags = [f"segment:{rules.keys[s['segment_id']]}" for s in shadows]
        version = await definitions.publish(tx, tags, now=now, after=deps.rulebook.highest)
        await _carry(tx, shadows, rules)
        entered = left = 0
        for shadow in shadows:
            came, went = await _move_members(tx, shadow, rules, now=now)
            entered, left = entered + came, left + went
        await tx.execute("DELETE FROM plan WHERE live AND segment_id = ANY($1)", [s["segment_id"] for s in shadows])
        await tx.execute(f"UPDATE plan SET live = true, since = $2 WHERE {OURS}", job["segments"], version)  # noqa: S608
        await tx.execute(
            "UPDATE backfill SET status = 'done', finished_at = $2, entered = $3, exited = $4 WHERE id = $1",
            job_id,
            now,
            entered,
            left,
        )
        if left_behind := _left_behind(rules, {s["segment_id"] for s in shadows}):
            await jobs.wait(tx, left_behind, now=now)
        await jobs.go_on(tx)
    deps.relay.wake()


def _left_behind(rules: Rules, swapped: Set[int]) -> list[int]:
    """What goes on as it is, though it refers to what is swapped: its newest version is quarantined."""
    others = {d.key: d for d in rules.live if d.id not in swapped}
    found = spread({rules.keys[i]: "" for i in swapped}, {key: d.condition for key, d in others.items()})
    return [others[key].id for key in found if key in others]


async def _carry(tx: Tx, shadows: Sequence[Any], rules: Rules) -> None:
    """Give people who were left out, as bits of the shadow plans, those of the plans they replace.

    A bit that replaces none may be another segment's that is gone, and is cleared; so is every one of a segment that gets
    or loses its list.
    """
    served = {d.id: d for d in rules.live}
    sources: dict[int, int | None] = {}
    for shadow in shadows:
        key, old = rules.keys[shadow["segment_id"]], served.get(shadow["segment_id"])
        alike = old and rules.ruleset.is_durable(key) == rules.ruleset.is_durable(key + definitions.SHADOW_MARK)
        sources.update(zip_longest(shadow["atoms"], old.atoms[: len(shadow["atoms"])] if old and alike else ()))
    after = ""
    while found := await tx.fetch(LEFT_OUT, after, PAGE):
        keys, versions = [r["profile"] for r in found], [r["version"] + 1 for r in found]
        documents = [_carried_document(r["document"], sources, rules.epoch) for r in found]
        atoms = [_carried(r["atoms"], sources) for r in found]
        await tx.execute(CARRY, keys, versions, atoms, documents, store.new_stamp())
        names = await identities.names_of(tx, keys)
        shown = [(names[k], v, d) for k, v, d in zip(keys, versions, documents, strict=True) if d is not None]
        await outbox.add(tx, wire.AUDIENCE, *wire.audience(shown, era=rules.era))
        after = keys[-1]


def _carried(stored: bytes, sources: Mapping[int, int | None]) -> bytes:
    bits = int.from_bytes(stored, "little")
    kept = bits & ~sum(1 << atom for atom in sources)
    return store.to_bytes(kept | sum(1 << a for a, old in sources.items() if old is not None and bits >> old & 1))


def _carried_document(stored: bytes | None, sources: Mapping[int, int | None], epoch: int) -> bytes | None:
    return None if stored is None else wire.changed_document(stored, epoch, lambda bits: _carried(bits, sources))


async def _move_members(tx: Tx, shadow: Any, rules: Rules, *, now: int) -> tuple[int, int]:
    """Bring the member list of one segment to what its new bits say; answers how many entered and left.

    A segment that needs the request has no list.
    """
    segment_id, version, key = shadow["segment_id"], shadow["version"], rules.keys[shadow["segment_id"]]
    if not rules.ruleset.is_durable(key + definitions.SHADOW_MARK):
        return 0, await store.empty(tx, segment_id, version=version, cause="definition", now=now)
    move, atom = Transition("", segment_id, now, True, "definition", version, None), shadow["atoms"][0]
    entered = await store.move_all(tx, ENTER, move, key, atom, version)
    return entered, await store.move_all(tx, LEAVE, move._replace(entered=False), key, atom)


async def run(deps: Deps, stop: asyncio.Event) -> None:
    """Work on backfills until `stop` is set."""
    await repeat(lambda: step(deps), stop, name=PART, idle_s=IDLE_S, health=deps.health)
