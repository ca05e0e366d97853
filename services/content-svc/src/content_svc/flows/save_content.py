"""Called by the API when a merchant saves, disables or deletes a block or slot. Publishes the next version of everything.

What is saved has been run: it is selected for made-up visitors before its transaction commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

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
from content_svc.domain.size import MOST_BYTES, blocks_bytes
from content_svc.quotas import QUOTAS
from content_svc.snapshot import BLOCK, SLOT, filled, is_live, places

WORDS = {BLOCK: "content", SLOT: "default"}
log = get_logger("content")


async def save_content(deps: Deps, edit: Edit) -> Document | None:
    """Save (or delete) a document. Raises Problem 403, 409 exists, slot-in-use or quota-full, 404, 412, 422 too-large, or
    content-invalid with pointers.
    """
    if edit.body is not None:
        edit = replace(edit, needs=await deps.segment_version())
    async with publishing(deps.db, deps.snapshot, deps.relay) as tx:
        saved = await _apply(deps, tx, edit)
        if saved is not None:
            await tx.during(asyncio.to_thread(_run, saved, deps.snapshot.documents))
    return saved


async def _apply(deps: Deps, tx: Tx, edit: Edit) -> Document | None:
    old = next((d.body for d in await documents.find(tx, edit.kind, keys=[edit.key])), None)
    if edit.kind == SLOT and edit.expected is not None:
        await _unused(tx, edit)
    await _known_to(tx, edit)
    changed = {*places(old), *places(edit.body)} if edit.kind == BLOCK else {edit.key}
    tags = sorted({f"{edit.kind}:{edit.key}", *(f"slot:{place}" for place in changed)})
    edit = replace(edit, tags=tags, soft=_is_edit(edit, old))
    return await documents.apply(tx, edit, quota=QUOTAS[edit.kind], fact=wire.targeting_fact)


async def _unused(tx: Tx, edit: Edit) -> None:
    """Raises Problem 409 slot-in-use with the blocks that would be without the slot, on some website or on all; 403, 404."""
    old, stays = await documents.read(tx, SLOT, edit.key, reader=edit.actor), touched(edit.body)
    theirs(edit.actor, touched(edit.body, old.body))  # who may not change it is not told who uses it
    if edit.body is not None and not stays:
        return
    blocks = await documents.find(tx, BLOCK, naming=f'"{edit.key}"')
    lost = [b for b in blocks if edit.key in places(b.body) and loses(b.body, touched(old.body), stays)]
    if users := named({f"block {b.key}": b.body for b in lost}, edit.actor):
        errors = [{"pointer": "", "detail": user} for user in users]
        raise Problem("slot-in-use", 409, "The slot is in use", errors=errors)


async def _known_to(tx: Tx, edit: Edit) -> None:
    """Raises Problem 422 for slots that who has some websites alone cannot see, or that there are not: he is told the same."""
    if edit.kind != BLOCK or edit.body is None or not edit.actor.websites:
        return
    named = places(edit.body)
    seen = {slot.key for slot in await documents.find(tx, SLOT, keys=named, reader=edit.actor)}
    errors = [
        {"pointer": f"/slots/{n}", "detail": "there is no such slot"} for n, key in enumerate(named) if key not in seen
    ]
    if errors:
        raise Problem("content-invalid", 422, "The block cannot be shown", errors=errors)


def _is_edit(edit: Edit, old: Any) -> bool:
    """Whether other words are shown to the same people at the same time: nothing ends for anybody, nor takes another's place."""
    if edit.body is None or old is None:
        return False
    try:
        return _wordless(old, WORDS[edit.kind]) == _wordless(edit.body, WORDS[edit.kind])
    except (AttributeError, KeyError, TypeError):  # nobody can say what the old one showed
        return False


def _wordless(body: Any, words: str) -> dict[str, Any]:
    """A body without its title, and with nothing but id and type of the elements that it shows in each locale."""
    elements = {
        locale: [(element["id"], element["type"]) for element in content["blocks"]]
        for locale, content in body[words].items()
    }
    return {**body, "title": None, words: elements}


def _run(saved: Document, live: Sequence[Document]) -> None:
    """Select with what was saved, for made-up visitors, and weigh it among what is live. Raises Problem 422 content-invalid."""
    try:
        (prove_block if saved.kind == BLOCK else prove_slot)(saved.key, saved.body)
    except Exception as error:
        log.error("content_refused_by_probe", kind=saved.kind, key=saved.key, error=type(error).__name__)
        raise _invalid(saved, [("", f"the {saved.kind} cannot be shown")]) from None
    if saved.kind == SLOT or is_live(saved):
        _weigh(saved, filled([*(d for d in live if d.id != saved.id), saved], lambda *_: None))


def _weigh(saved: Document, slots: Mapping[str, Slot]) -> None:
    """Refuse what makes the answer of a slot too large. Raises Problem 422 content-invalid."""
    pointer, faults = "/content" if saved.kind == BLOCK else "/capacity", []
    for key in sorted(set(places(saved.body))) if saved.kind == BLOCK else [saved.key]:
        if key in slots and blocks_bytes(slots[key], touched(saved.body)) > MOST_BYTES:
            kib = MOST_BYTES // 1024
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
