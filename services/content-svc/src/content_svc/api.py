"""Routes of content-svc: parse, call a flow or the selection, answer. Internal: only other services get in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any

from chassis import documents
from chassis.answers import Versions, says
from chassis.auth import Actor
from chassis.documents import Edit, expected_version
from chassis.http import STORABLE, VIEWER, IfMatch, Marketer, Viewer
from chassis.pages import LIMIT, After, AfterVersion, Limit
from chassis.problems import faults
from chassis.reached import head
from chassis.websites import loses, named
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from content_svc import kills
from content_svc.answers import Blocks, Slots, StoredBlock, StoredSlot
from content_svc.deps import Deps
from content_svc.domain.select import Visitor, audiences, boundaries, tags_of
from content_svc.flows.save_content import disable_block, save_content
from content_svc.schemas import DynamicBlock, KillList, NewDynamicBlock, NewSlot, Selection, Selections, SlotBody
from content_svc.snapshot import BLOCK, SLOT, named_segments

router = APIRouter(prefix="/v1")
merchants = APIRouter(prefix="/v1", dependencies=[VIEWER])


Websites = Annotated[Sequence[str], Query()]


def deps_of(request: Request) -> Deps:
    """What app.py put on the application."""
    deps: Deps = request.app.state.deps
    return deps


DepsDep = Annotated[Deps, Depends(deps_of)]


async def _page(deps: Deps, kind: str, reader: Actor, after: str, limit: int) -> JSONResponse:
    async with deps.db.tx() as tx:
        found, more = await documents.page(tx, kind, reader=reader, after=after, limit=limit)
    return JSONResponse({f"{kind}s": [d.view() for d in found], "next": more})


async def _one(deps: Deps, kind: str, key: str, response: Response, *, reader: Actor) -> dict[str, Any]:
    async with deps.db.tx() as tx:
        found = await documents.read(tx, kind, key, reader=reader)
    response.headers["etag"] = f'"{found.version}"'
    return found.view()


async def _save(deps: Deps, edit: Edit) -> dict[str, Any]:
    saved = await save_content(deps, edit)
    assert saved is not None
    return saved.view()


@merchants.get("/blocks", **says(Blocks))
async def list_blocks(deps: DepsDep, reader: Viewer, after: After = "", limit: Limit = LIMIT) -> JSONResponse:
    """A page of the dynamic blocks that the reader may see."""
    return await _page(deps, BLOCK, reader, after, limit)


@merchants.post("/blocks", status_code=201, dependencies=[STORABLE], **says(StoredBlock, 201))
async def create_block(body: NewDynamicBlock, deps: DepsDep, actor: Marketer) -> dict[str, Any]:
    """Create a block. It has at most 256 KiB, and so has all that one of its slots may show at once."""
    return await _save(deps, Edit(BLOCK, body.key, body.model_dump(mode="json", exclude={"key"}), None, actor))


@merchants.get("/blocks/{key}", **says(StoredBlock))
async def get_block(key: str, deps: DepsDep, response: Response, reader: Viewer) -> dict[str, Any]:
    """One block."""
    return await _one(deps, BLOCK, key, response, reader=reader)


@merchants.put("/blocks/{key}", dependencies=[STORABLE], **says(StoredBlock))
async def put_block(
    key: str, body: DynamicBlock, deps: DepsDep, actor: Marketer, if_match: IfMatch = None
) -> dict[str, Any]:
    """Save a new version of a block."""
    return await _save(deps, Edit(BLOCK, key, body.model_dump(mode="json"), expected_version(if_match), actor))


@merchants.delete("/blocks/{key}", status_code=204)
async def delete_block(key: str, deps: DepsDep, actor: Marketer, if_match: IfMatch = None) -> None:
    """Delete a block."""
    await save_content(deps, Edit(BLOCK, key, None, expected_version(if_match), actor))


@merchants.post("/blocks/{key}/disable", **says(StoredBlock))
async def post_block_disable(key: str, deps: DepsDep, actor: Marketer) -> dict[str, Any]:
    """Take a block off every page at once."""
    return (await disable_block(deps, key, actor=actor)).view()


@merchants.get("/blocks/{key}/versions", **says(Versions))
async def list_block_versions(
    key: str, deps: DepsDep, reader: Viewer, after: AfterVersion = None, limit: Limit = LIMIT
) -> JSONResponse:
    """A page of who saved what, newest first."""
    async with deps.db.tx() as tx:
        return JSONResponse(await documents.history(tx, BLOCK, key, reader=reader, after=after, limit=limit))


@merchants.get("/slots", **says(Slots))
async def list_slots(deps: DepsDep, reader: Viewer, after: After = "", limit: Limit = LIMIT) -> JSONResponse:
    """A page of the slots that the reader may see."""
    return await _page(deps, SLOT, reader, after, limit)


@merchants.post("/slots", status_code=201, dependencies=[STORABLE], **says(StoredSlot, 201))
async def create_slot(body: NewSlot, deps: DepsDep, actor: Marketer) -> dict[str, Any]:
    """Create a slot. It has at most 64 KiB, and what it may show at once 256 KiB."""
    return await _save(deps, Edit(SLOT, body.key, body.model_dump(mode="json", exclude={"key"}), None, actor))


@merchants.get("/slots/{key}", **says(StoredSlot))
async def get_slot(key: str, deps: DepsDep, response: Response, reader: Viewer) -> dict[str, Any]:
    """One slot."""
    return await _one(deps, SLOT, key, response, reader=reader)


@merchants.put("/slots/{key}", dependencies=[STORABLE], **says(StoredSlot))
async def put_slot(
    key: str, body: SlotBody, deps: DepsDep, actor: Marketer, if_match: IfMatch = None
) -> dict[str, Any]:
    """Save a new version of a slot."""
    return await _save(deps, Edit(SLOT, key, body.model_dump(mode="json"), expected_version(if_match), actor))


@merchants.delete("/slots/{key}", status_code=204)
async def delete_slot(key: str, deps: DepsDep, actor: Marketer, if_match: IfMatch = None) -> None:
    """Delete a slot that no block names."""
    await save_content(deps, Edit(SLOT, key, None, expected_version(if_match), actor))


@router.post("/select")
async def post_select(body: Selection, deps: DepsDep, request: Request) -> dict[str, Any]:
    """Which blocks for this visitor, per slot; unknown slots are left out.

    Asked for a version that is not here yet, or no more, it says which one is, and nothing else.
    """
    reader: Actor | None = request.state.actor
    return _selected(body, deps, reader.websites if reader else ())


def _selected(body: Selection, deps: Deps, websites: Collection[str]) -> dict[str, Any]:
    published = deps.snapshot.at(body.version)
    if published is None:
        return _nothing(deps)
    slots = [published.slots[key] for key in body.slots if key in published.slots]
    visitor = Visitor(
        body.website, frozenset(body.segments), body.group, body.locale, body.at_ms,
        killed=frozenset(body.killed), unknown=frozenset(body.unknown),
    )  # fmt: skip
    coming = [at for s in slots for at in boundaries(s.blocks) if at > body.at_ms]
    answer = {
        "version": published.version,
        "slots": published.select(slots, visitor),
        "tags": tags_of(slots),
        "next_change_at": min(coming, default=None),
    }
    return {**answer, "explain": published.explain(slots, visitor, websites)} if body.explain else answer


@router.post("/select-many")
async def post_select_many(body: Selections, deps: DepsDep) -> dict[str, Any]:
    """The same for many visitors at once, in order. An ask that is not valid gets no slots, and `refused` says why."""
    return {"answers": [_judged(ask, deps) for ask in body.asks]}


def _judged(ask: Any, deps: Deps) -> dict[str, Any]:
    try:
        asked = Selection.model_validate(ask)
    except ValidationError as error:
        return {**_nothing(deps), "refused": faults(error.errors())}
    return _selected(asked, deps, ())


def _nothing(deps: Deps) -> dict[str, Any]:
    return {"version": deps.snapshot.value.version, "slots": {}, "tags": tags_of(()), "next_change_at": None}


@router.get("/targeting")
async def get_targeting(deps: DepsDep) -> dict[str, Any]:
    """Per slot, what its answers depend on, and its default; and what the latest versions changed."""
    published = deps.snapshot.value
    slots = {
        s.key: {
            "websites": sorted(s.websites),
            "audiences": audiences(s),
            "locales": sorted({*s.default, *(locale for b in s.blocks for locale in b.content)}),
            "default": s.default,
            "tags": tags_of([s]),
        }
        for s in published.slots.values()
    }
    return {"version": published.version, "slots": slots, "changes": published.changes}


@router.get("/head")
async def get_head(deps: DepsDep) -> dict[str, Any]:
    """The version of everything published, as the database says now, whatever this process serves; see head."""
    async with deps.db.tx() as tx:
        return await head(tx, await documents.head(tx), deps.reached)


@router.get("/kills")
async def get_kills(deps: DepsDep) -> dict[str, Any]:
    """The copy of the gateways' list of kills."""
    async with deps.db.tx() as tx:
        return await kills.kept(tx)


@router.put("/kills")
async def put_kills(body: KillList, deps: DepsDep) -> dict[str, Any]:
    """Keep another one, if that which it is to go over is still there; answers which one is kept now."""
    async with deps.db.tx() as tx:
        return await kills.keep(tx, body)


@router.get("/usage")
async def get_usage(
    segment: str, deps: DepsDep, reader: Viewer, was: Websites = (), stays: Websites = ()
) -> dict[str, Any]:
    """Which blocks, live or not, name a segment, by the names that the reader may know.

    Of a segment that `was` of some websites and `stays` of fewer, those that would be without it (`chassis.websites.loses`).
    """
    async with deps.db.tx() as tx:
        found = await documents.find(tx, BLOCK, naming=f'"{segment}"')
    users = {f"block {d.key}": d.body for d in found if segment in named_segments(d.body) and loses(d.body, was, stays)}
    return {"users": named(users, reader)}
