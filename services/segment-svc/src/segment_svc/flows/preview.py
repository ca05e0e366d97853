"""Called by the API before a save: how many people a condition would match."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from functools import partial
from time import thread_time
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from chassis.auth import Actor
from chassis.beside import owner
from chassis.problems import Problem
from chassis.websites import visible
from conditions import Fault

from segment_svc import definitions, reads
from segment_svc.definitions import Rules
from segment_svc.deps import Deps
from segment_svc.domain import profile as people
from segment_svc.domain.checks import among
from segment_svc.domain.definition import Definition, needed
from segment_svc.domain.part import atoms_needed
from segment_svc.domain.ruleset import RuleRaised, RuleSet
from segment_svc.flows.quarantine import guarded
from segment_svc.flows.save_segment import refuse, try_alone

SAMPLE, WORK_S, WAIT_S = 2000, 1.0, 5.0
DRAFT = "@draft"  # as no segment can be called


async def latest_rules(deps: Deps) -> Rules:
    """The rules of the newest release, read without keeping anybody waiting."""

    return await guarded(deps, lambda: deps.rulebook.latest(deps.db))


async def preview_of(deps: Deps, draft: dict[str, Any], *, reader: Actor) -> dict[str, Any]:
    """The number of people, and how certain it is. Raises Problem 422, 503 while too many others are being made."""
    try:
        async with asyncio.timeout(WAIT_S):
            await deps.previews.acquire()
    except TimeoutError:
        raise Problem("busy", 503, "Other previews are being made", headers={"retry-after": "2"}) from None
    try:
        return await _counted(deps, draft, reader)
    finally:
        deps.previews.release()


async def _counted(deps: Deps, body: dict[str, Any], reader: Actor) -> dict[str, Any]:
    rules, zone = await latest_rules(deps), deps.rulebook.zone
    draft = definitions.as_definition(0, DRAFT, 0, {**body, "overrides": []})
    seen = [d for d in rules.live if visible(reader, {"websites": list(d.websites)})]
    turn = partial(deps.trying.run, owner(reader))
    # Beside the loop: a draft takes its time to be read, and one person may take long, for it has not been weighed before.
    await turn(try_alone, draft, zone)
    refuse(among([*seen, draft], DRAFT))
    if await turn(atoms_needed, draft, zone) != 1:
        title = "A condition on the request cannot be counted in advance"
        raise Problem("needs-request", 422, title, pointers=["/condition"])
    bit = max((a for d in rules.live for a in d.atoms), default=-1) + 1
    counted = needed([*rules.live, msgspec.structs.replace(draft, atoms=(bit,))], DRAFT)
    async with deps.db.tx() as tx:
        drawn, total = await reads.sample(tx, SAMPLE)
    try:
        matched, looked_at = await turn(_matched, counted, zone, drawn, bit, deps.clock.now_ms())
    except RuleRaised:
        refuse([Fault("", "cannot-run", "it cannot be decided for everybody")])
    return _estimate(matched, looked_at, total)


def _estimate(matched: int, looked_at: int, total: int) -> dict[str, Any]:
    """With the 95 % margin of a share of a random sample (normal approximation)."""
    share, exact = matched / looked_at if looked_at else 0.0, looked_at == total
    spread = math.sqrt(max(share * (1 - share), 1 / max(1, looked_at)) / max(1, looked_at))
    return {
        "matched": matched,
        "sampled": looked_at,
        "profiles": total,
        "estimate": round(share * total),
        "margin95": 0 if exact else round(1.96 * spread * total),
        "exact": exact,
    }


def _matched(
    counted: Sequence[Definition], zone: ZoneInfo, drawn: Sequence[tuple[str, bytes]], bit: int, now: int
) -> tuple[int, int]:
    """(how many have the bit, of how many looked at) within WORK_S of work. Whose state cannot be read is left out."""
    ruleset, matched, looked_at, began = RuleSet.compile(counted, zone), 0, 0, thread_time()
    for key, state in drawn:
        with contextlib.suppress(ValueError, people.NewerState):
            person = people.decode(state)
            matched += ruleset.timeline(person, now, horizon_ms=0, key=key).bits >> bit & 1
            looked_at += 1
        if thread_time() - began > WORK_S:
            break
    return matched, looked_at
