"""Called by the API when a merchant saves, disables or deletes a block or slot. Publishes the next version of everything.

What is saved has been run: it is selected for made-up visitors before its transaction commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from chassis import documents
from chassis.auth import Actor
from chassis.db import Tx
from chassis.documents import Document, Edit
from chassis.problems import Problem
from chassis.snapshot import publishing
from chassis.telemetry import get_logger
from chassis.websites import loses, named, theirs, touched

from content_svc import wire
from content_svc.deps import Deps
from content_svc.domain.probe import prove_block, prove_slot
from content_svc.domain.select import Slot
from content_svc.domain.size import MOST_BYTES, blocks_bytes, default_bytes
from content_svc.snapshot import BLOCK, SLOT, filled, is_live, places

WORDS = {BLOCK: {"title", "content"}, SLOT: {"title", "default"}}  # what changes without anything ending
log = get_logger("content")


async def save_content(deps: Deps, edit: Edit) -> Document | None:
    """Save (or delete) a document. Raises Problem 403, 409 exists or slot-in-use, 404, 412, 422 content-invalid with pointers."""
    if edit.body is not None:
        edit = replace(edit, needs=await deps.segment_version())
    async with publishing(deps.db, deps.snapshot, deps.relay) as tx:
        saved = await _apply(deps, tx, edit)
        if saved is not None:
            await asyncio.to_thread(_run, saved)
            _weigh(saved, filled(await documents.read_all(tx), lambda *_: None))
    return saved


async def _apply(deps: Deps, tx: Tx, edit: Edit) -> Document | None:
    blocks = await documents.read_all(tx, BLOCK)
    if edit.kind == SLOT and edit.expected is not None:
        await _unused(tx, edit, blocks)
    await _known_to(tx, edit)
    old = [place for b in blocks if edit.kind == BLOCK and b.key == edit.key for place in places(b.body)]
    changed = {*old, *(places(edit.body) if edit.kind == BLOCK else [edit.key])}
    tags = sorted({f"{edit.kind}:{edit.key}", *(f"slot:{place}" for place in changed)})
    edit = replace(edit, tags=tags, soft=await _is_edit(tx, edit))
    return await documents.apply(tx, edit, fact=wire.targeting_fact)


async def _unused(tx: Tx, edit: Edit, blocks: Sequence[Document]) -> None:
    """Raises Problem 409 slot-in-use with the blocks that would be without the slot, on some website or on all; 403, 404."""
    old, stays = await documents.read(tx, SLOT, edit.key, reader=edit.actor), touched(edit.body)
    theirs(edit.actor, touched(edit.body, old.body))  # who may not change it is not told who uses it
    if edit.body is not None and not stays:
        return
    lost = [b for b in blocks if edit.key in places(b.body) and loses(b.body, touched(old.body), stays)]
    if users := named({f"block {b.key}": b.body for b in lost}, edit.actor):
        errors = [{"pointer": "", "detail": user} for user in users]
        raise Problem("slot-in-use", 409, "The slot is in use", errors=errors)


async def _known_to(tx: Tx, edit: Edit) -> None:
    """Raises Problem 422 for slots that who has some websites alone cannot see, or that there are not: he is told the same."""
    if edit.kind != BLOCK or edit.body is None or not edit.actor.websites:
        return
    seen = {slot.key for slot in await documents.read_all(tx, SLOT, reader=edit.actor)}
    errors = [
        {"pointer": f"/slots/{n}", "detail": "there is no such slot"}
        for n, key in enumerate(places(edit.body))
        if key not in seen
    ]
    if errors:
        raise Problem("content-invalid", 422, "The block cannot be shown", errors=errors)


async def _is_edit(tx: Tx, edit: Edit) -> bool:
    """Whether other words are shown to the same people at the same time."""
    old = next((d.body for d in await documents.read_all(tx, edit.kind) if d.key == edit.key), None)
    if edit.body is None or not isinstance(old, dict):
        return False
    names = (old.keys() | edit.body.keys()) - WORDS[edit.kind]
    return all(name in old and old[name] == edit.body.get(name) for name in names)


def _run(saved: Document) -> None:
    """Select with what was saved, for made-up visitors. Raises Problem 422 content-invalid."""
    try:
        (prove_block if saved.kind == BLOCK else prove_slot)(saved.key, saved.body)
    except Exception as error:
        log.error("content_refused_by_probe", kind=saved.kind, key=saved.key, error=type(error).__name__)
        raise _invalid(saved, [("", f"the {saved.kind} cannot be shown")]) from None


def _weigh(saved: Document, slots: Mapping[str, Slot]) -> None:
    """Refuse what makes the answer of a slot too large. Raises Problem 422 content-invalid."""
    kib, faults = MOST_BYTES // 1024, []
    for key in sorted(set(places(saved.body))) if saved.kind == BLOCK else [saved.key]:
        slot = slots.get(key)
        if slot is None:
            continue
        if saved.kind == SLOT and default_bytes(slot) > MOST_BYTES:
            faults.append(("/default", f"in one locale it has at most {kib} KiB, encoded"))
        if (saved.kind == SLOT or is_live(saved)) and blocks_bytes(slot, touched(saved.body)) > MOST_BYTES:
            pointer = "/content" if saved.kind == BLOCK else "/capacity"
            detail = (
                f"the live blocks that slot {key} may show at once come to over {kib} KiB, each in its largest locale"
            )
            faults.append((pointer, detail))
    if faults:
        raise _invalid(saved, faults[:50])


def _invalid(saved: Document, faults: Sequence[tuple[str, str]]) -> Problem:
    errors = [{"pointer": pointer, "detail": detail} for pointer, detail in faults]
    return Problem("content-invalid", 422, f"The {saved.kind} cannot be used", errors=errors)


async def disable_block(deps: Deps, key: str, *, actor: Actor) -> Document:
    """Take a block off every page at once, whatever version it is at, readable or not, and whoever saves."""
    async with publishing(deps.db, deps.snapshot, deps.relay) as tx:
        found = await documents.read(tx, BLOCK, key, reader=actor)
        saved = await _apply(deps, tx, Edit(BLOCK, key, {**found.body, "status": "disabled"}, found.version, actor))
    assert saved is not None
    return saved
