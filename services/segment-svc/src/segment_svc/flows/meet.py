"""Called by save_segment. Gives people of whom no event has come a row, so that what is decided of them by hand holds at once."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from chassis.pace import pause_s

from segment_svc import store
from segment_svc.deps import Deps
from segment_svc.domain import profile as people
from segment_svc.flows.apply_events import ATTEMPTS, settle
from segment_svc.flows.quarantine import guarded
from segment_svc.store import Row


async def meet(deps: Deps, keys: Collection[str]) -> None:
    """Make the rows of these people (v:... or c:...) that are missing, as the rules see somebody who did nothing."""
    for attempt in range(ATTEMPTS):
        try:
            await guarded(deps, lambda: _attempt(deps, keys))
            break
        except store.Conflict:  # somebody's first event came meanwhile
            if attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(pause_s(attempt, base_s=0.005, most_s=0.5))
    deps.relay.wake()


async def _attempt(deps: Deps, keys: Collection[str]) -> None:
    async with deps.db.tx() as tx:
        rules = await deps.rulebook.current(tx)
        known = await store.known(tx, keys)
        new = [Row(key, "", people.empty("customer" if key.startswith("c:") else "visitor"), new=True) for key in keys]
        await settle(tx, [row for row in new if row.key not in known], rules, now=deps.clock.now_ms())
