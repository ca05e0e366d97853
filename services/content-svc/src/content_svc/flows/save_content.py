"""Called by the API when a merchant saves, disables or deletes a block or slot. Publishes the next version of everything."""

from __future__ import annotations

from chassis import documents
from chassis.documents import Document, Edit
from chassis.problems import Problem

from content_svc import wire
from content_svc.deps import Deps
from content_svc.snapshot import BLOCK, SLOT


async def save_content(deps: Deps, edit: Edit) -> Document | None:
    """Save (or delete) a document. Raises Problem 409 exists or slot-in-use, 404, 412."""
    async with deps.db.tx() as tx:
        blocks = await documents.read_all(tx, BLOCK)
        if edit.kind == SLOT and edit.body is None:
            users = [b.key for b in blocks if edit.key in b.body["slots"]]
            if users:
                errors = [{"pointer": "", "detail": f"block {key}"} for key in users]
                raise Problem("slot-in-use", 409, "The slot is in use", errors=errors)
        old: list[str] = next((b.body["slots"] for b in blocks if edit.kind == BLOCK and b.key == edit.key), [])
        places = {*old, *((edit.body or {}).get("slots") or [] if edit.kind == BLOCK else [edit.key])}
        tags = sorted({f"{edit.kind}:{edit.key}", *(f"slot:{place}" for place in places)})
        edit = Edit(edit.kind, edit.key, edit.body, edit.expected, edit.actor, tags)
        saved = await documents.apply(tx, edit, fact=wire.targeting_fact, now=deps.clock.now_ms())
    await deps.snapshot.refresh()
    deps.relay.wake()
    return saved


async def disable_block(deps: Deps, key: str, *, actor: str) -> Document | None:
    """Take a block off every page at once, whatever version it is at."""
    async with deps.db.tx() as tx:
        found = await documents.read(tx, BLOCK, key)
    return await save_content(deps, Edit(BLOCK, key, {**found.body, "status": "disabled"}, found.version, actor))
