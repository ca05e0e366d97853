"""Called by save_segment. Gives people of whom no event has come a row, so that what is decided of them by hand holds at once."""

from __future__ import annotations

from collections.abc import Collection

from segment_svc import store
from segment_svc.deps import Deps
from segment_svc.flows.apply_events import settle
from segment_svc.flows.quarantine import agreed


async def meet(deps: Deps, keys: Collection[str]) -> None:
    """Make the rows of these people (v:... or c:...) that are missing, as the rules see somebody who did nothing."""
    if keys:
        await agreed(deps, lambda: _attempt(deps, keys))
        deps.relay.wake()


async def _attempt(deps: Deps, keys: Collection[str]) -> None:
    async with deps.db.tx() as tx:
        rules = await deps.rulebook.current(tx)
        known = await store.known(tx, keys)
        new = [store.unmet(key) for key in keys if key not in known]
        await settle(tx, new, rules, now=deps.clock.now_ms())
