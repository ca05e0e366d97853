"""Called by the API when a merchant saves, disables or deletes a block or slot. Publishes the next version of everything.

What is saved has been run: it is selected for made-up visitors before its transaction commits.
"""

from __future__ import annotations

from chassis import documents
from chassis.documents import Document, Edit
from chassis.problems import Problem
from chassis.telemetry import get_logger

from content_svc import wire
from content_svc.deps import Deps
from content_svc.domain.probe import prove_block, prove_slot
from content_svc.snapshot import BLOCK, SLOT, places

log = get_logger("content")


async def save_content(deps: Deps, edit: Edit, *, proven: bool = True) -> Document | None:
    """Save (or delete) a document. Raises Problem 409 exists or slot-in-use, 404, 412, 422 content-invalid."""
    async with deps.db.tx() as tx:
        blocks = await documents.read_all(tx, BLOCK)
        if edit.kind == SLOT and edit.body is None:
            users = [b.key for b in blocks if edit.key in places(b.body)]
            if users:
                errors = [{"pointer": "", "detail": f"block {key}"} for key in users]
                raise Problem("slot-in-use", 409, "The slot is in use", errors=errors)
        old = [place for b in blocks if edit.kind == BLOCK and b.key == edit.key for place in places(b.body)]
        touched = {*old, *(places(edit.body) if edit.kind == BLOCK else [edit.key])}
        tags = sorted({f"{edit.kind}:{edit.key}", *(f"slot:{place}" for place in touched)})
        edit = Edit(edit.kind, edit.key, edit.body, edit.expected, edit.actor, tags)
        saved = await documents.apply(tx, edit, fact=wire.targeting_fact, now=deps.clock.now_ms())
        if proven and saved is not None:
            _run(saved)
    await deps.snapshot.refresh()
    deps.relay.wake()
    return saved


def _run(saved: Document) -> None:
    """Select with what was saved, for made-up visitors. Raises Problem 422 content-invalid."""
    try:
        (prove_block if saved.kind == BLOCK else prove_slot)(saved.key, saved.body)
    except Exception as error:
        log.error("content_refused_by_probe", kind=saved.kind, key=saved.key, error=type(error).__name__)
        errors = [{"pointer": "", "detail": f"the {saved.kind} cannot be shown"}]
        raise Problem("content-invalid", 422, f"The {saved.kind} cannot be used", errors=errors) from None


async def disable_block(deps: Deps, key: str, *, actor: str) -> Document | None:
    """Take a block off every page at once, whatever version it is at, readable or not."""
    async with deps.db.tx() as tx:
        found = await documents.read(tx, BLOCK, key)
    edit = Edit(BLOCK, key, {**found.body, "status": "disabled"}, found.version, actor)
    return await save_content(deps, edit, proven=False)
