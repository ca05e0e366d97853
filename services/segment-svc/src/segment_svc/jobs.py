"""Jobs: which segments are being computed for everybody, and which wait for that. For who is alone with the definitions, and
publishes a release.

One job runs, and one at most waits until it has swapped. A change takes out of the one that runs what it makes worthless, and
nothing else: a segment that is saved again and again delays itself, and what cannot be without it. The plans of a job that
waits (`plan.waiting`) are nobody's rules yet; those of one that runs are everybody's, from its first page to its swap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from chassis.db import Tx
from chassis.problems import Problem

from segment_svc import definitions
from segment_svc.catalog import Stored
from segment_svc.deps import Deps
from segment_svc.domain.definition import Definition, leaving, references
from segment_svc.domain.part import atoms_needed

MOST_ATOMS = 4096
RUNNING = "SELECT unnest(segments) FROM backfill WHERE status = 'running'"
# Of a job that has nothing left it is still said what it was for.
REPLACE = "UPDATE backfill SET status = 'replaced' WHERE status = ANY($2::text[]) AND segments <@ $1::int[]"
TAKE_OUT = """UPDATE backfill SET segments = ARRAY(SELECT unnest(segments) EXCEPT SELECT unnest($1::int[]))
    WHERE status IN ('running', 'waiting')"""
JOIN = "UPDATE backfill SET segments = segments || $1::int[] WHERE status = 'waiting' RETURNING id"
WAIT = "INSERT INTO backfill (segments, status, created_at) VALUES ($1, 'waiting', $2)"
BEGIN = """UPDATE backfill SET status = 'running', total = (SELECT count(*) FROM profile WHERE merged_into IS NULL)
    WHERE status = 'waiting' AND NOT EXISTS (SELECT FROM backfill WHERE status = 'running') RETURNING id"""


async def plan(
    deps: Deps, tx: Tx, affected: Sequence[Stored], everything: Sequence[Stored], known: Mapping[tuple[int, int], int]
) -> None:
    """Have segments computed anew, with what of the running job cannot be without them. `known`: how many bits an id and
    version take; what was planned before takes as many as then. Raises Problem 409 segments-full.
    """
    chosen = {s.id: s for s in affected}
    running = [r[0] for r in await tx.fetch(RUNNING)]
    out = _leaving({s.key for s in affected}, [s for s in everything if s.id in running])
    chosen.update((s.id, s) for s in everything if s.key in out)
    planned = {(r["segment_id"], r["version"]): len(r["atoms"]) for r in await tx.fetch("SELECT * FROM plan")}
    await _take_out(tx, list(chosen), "running")
    await tx.execute("DELETE FROM plan WHERE NOT live AND segment_id = ANY($1::int[])", list(chosen))
    counts = {**planned, **known}
    wanted = {
        s.id: counts.get((s.id, s.version)) or atoms_needed(as_saved(s), deps.rulebook.zone) for s in chosen.values()
    }
    epoch, free = await _take_atoms(tx, sum(wanted.values()))
    for stored in chosen.values():
        await tx.execute(
            "INSERT INTO plan (segment_id, version, atoms, epoch, live, waiting) VALUES ($1, $2, $3, $4, false, true)",
            stored.id, stored.version, [next(free) for _ in range(wanted[stored.id])], epoch,
        )  # fmt: skip
    await wait(tx, list(chosen), now=deps.clock.now_ms())
    await go_on(tx)


async def wait(tx: Tx, segments: Sequence[int], *, now: int) -> None:
    """Have everybody evaluated when the job that runs has ended, for these segments; those that have no plan serve as they do."""
    if not await tx.fetchval(JOIN, segments):
        await tx.execute(WAIT, segments, now)


async def forget(tx: Tx, segment_id: int) -> None:
    """A segment is no more, or switched off: the job it was in goes on without it."""
    await tx.execute("DELETE FROM plan WHERE segment_id = $1", segment_id)
    await _take_out(tx, [segment_id], "running", "waiting")
    await go_on(tx)


async def go_on(tx: Tx) -> None:
    """Begin the job that waits, if none runs."""
    if await tx.fetchval(BEGIN):
        await tx.execute("UPDATE plan SET waiting = false WHERE waiting")


def as_saved(stored: Stored) -> Definition:
    """The domain's form of a saved segment, whatever is planned of it."""
    return definitions.as_definition(stored.id, stored.key, stored.version, stored.body)


def _leaving(keys: set[str], running: Sequence[Stored]) -> set[str]:
    return leaving(
        keys,
        {s.key: references(s.body.get("condition")) for s in running},
        {s.key: references((s.serving or {}).get("condition")) for s in running},
    )


async def _take_out(tx: Tx, segments: Sequence[int], *ending: str) -> None:
    """Segments leave their jobs; those of these kinds end that have no other."""
    await tx.execute(REPLACE, segments, ending)
    await tx.execute(TAKE_OUT, segments)


async def _take_atoms(tx: Tx, count: int) -> tuple[int, Iterator[int]]:
    """(epoch, numbers) of bits that meant nothing in this epoch. Raises Problem 409 segments-full."""
    record = await tx.fetchrow("SELECT epoch, atoms FROM free_atoms FOR UPDATE")
    epoch, free = record["epoch"], record["atoms"]
    if len(free) < count:  # what is nobody's now can be had in another epoch
        used = {a for r in await tx.fetch("SELECT atoms FROM plan") for a in r["atoms"]}
        epoch, free = epoch + 1, [atom for atom in range(MOST_ATOMS) if atom not in used]
    if len(free) < count:
        raise Problem("segments-full", 409, "There are too many segments", detail=f"{MOST_ATOMS} bits are in use")
    await tx.execute("UPDATE free_atoms SET epoch = $1, atoms = $2", epoch, free[count:])
    return epoch, iter(free[:count])
