"""Called by backfill. Gives people of whom no event has come a row, so that what is decided by hand holds with the swap."""

from __future__ import annotations

from segment_svc import store
from segment_svc.deps import Deps
from segment_svc.flows.apply_events import in_key_order, settle
from segment_svc.flows.quarantine import agreed

UNMET = """SELECT DISTINCT pick->>'profile' AS profile FROM plan p
    JOIN segment_version v USING (segment_id, version), jsonb_array_elements(v.body->'overrides') AS pick
    WHERE p.cause IS NULL AND NOT p.waiting AND NOT EXISTS (SELECT 1 FROM profile WHERE profile.profile = pick->>'profile')"""


async def meet(deps: Deps) -> None:
    """Make the rows that people named by a segment lack, as the rules see somebody who did nothing."""
    await agreed(deps, lambda: _attempt(deps))


async def _attempt(deps: Deps) -> None:
    async with deps.db.tx() as tx:
        rules = await deps.rulebook.current(tx)  # which reads every plan that the statement does
        new = [store.unmet(r["profile"]) for r in await tx.fetch(UNMET)]
        await settle(tx, in_key_order(new), rules, now=rules.instant(deps.clock, new))
