"""Called by the worker's clock. Takes people whose next flip is due, records it at its own instant, looks further ahead.

Batches are small and skip locked rows, so that a storm of flips at midnight does not hold up live events.
"""

from __future__ import annotations

import asyncio

from chassis.clock import Clock
from chassis.db import Tx
from chassis.service import repeat

from segment_svc import store
from segment_svc.definitions import Rules
from segment_svc.deps import Deps
from segment_svc.flows.quarantine import patient
from segment_svc.flows.settle_many import settle_many
from segment_svc.telemetry import OVERDUE

BATCH = 256
IDLE_S = 0.25


async def sweep(deps: Deps, *, by: int | None = None) -> int:
    """Settle some of the people due by an instant, by default now; answers how many were due, none when all is done."""
    count = await patient(deps, lambda wary: _sweep(deps, wary, by))
    if count:
        deps.relay.wake()
    OVERDUE.set(count)
    return count


async def _sweep(deps: Deps, wary: bool, by: int | None) -> int:
    async with deps.db.tx() as tx:
        rules = await deps.rulebook.current(tx)
        return await settle_due(tx, rules, deps.clock, by=deps.clock.now_ms() if by is None else by, wary=wary)


async def settle_due(tx: Tx, rules: Rules, clock: Clock, *, by: int, wary: bool) -> int:
    """Settle some of a batch of people due by an instant (see settle_many); answers how many were due."""
    keys = await store.due(tx, by, BATCH)
    found = await store.load(tx, keys, postponing=clock.now_ms())
    await settle_many(tx, keys, found, rules, now=max(by, rules.instant(clock, found.values())), wary=wary)
    return len(keys)


async def run(deps: Deps, stop: asyncio.Event) -> None:
    """Sweep until `stop` is set; waits a moment whenever nothing is due."""

    async def work() -> bool:
        return await sweep(deps) > 0  # some may be left of any batch

    await repeat(work, stop, name="postgres sweep", idle_s=IDLE_S, health=deps.health)
