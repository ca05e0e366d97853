"""Called by the API when a merchant saves, disables or deletes a rule. Publishes the next version of everything."""

from __future__ import annotations

from typing import Any

from chassis import documents
from chassis.documents import Document, Edit
from chassis.problems import Problem

from promo_svc import wire
from promo_svc.deps import Deps
from promo_svc.domain.rule import check
from promo_svc.snapshot import KIND


async def save_rule(
    deps: Deps, key: str, body: dict[str, Any] | None, *, expected: int | None, actor: str
) -> Document | None:
    """Save (or, without a body, delete) a rule. Raises Problem 409, 404, 412, 422 rule-invalid with pointers."""
    faults = check(body) if body is not None else []
    if faults:
        errors = [{"pointer": f.pointer, "detail": f.detail} for f in faults]
        raise Problem("rule-invalid", 422, "The rule cannot be used", errors=errors)
    edit = Edit(KIND, key, body, expected, actor, (f"rule:{key}", "promo"))
    async with deps.db.tx() as tx:
        saved = await documents.apply(tx, edit, fact=wire.targeting_fact, now=deps.clock.now_ms())
    await deps.snapshot.refresh()
    deps.relay.wake()
    return saved


async def disable_rule(deps: Deps, key: str, *, actor: str) -> Document | None:
    """Switch a rule off at once, whatever version it is at."""
    async with deps.db.tx() as tx:
        found = await documents.read(tx, KIND, key)
    return await save_rule(deps, key, {**found.body, "status": "disabled"}, expected=found.version, actor=actor)
