"""Routes of segment-svc: parse, call a flow or a read, answer. Internal: only other services get in."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from chassis.answers import Versions, says
from chassis.auth import Actor
from chassis.bus import Record
from chassis.bus_places import EARLIEST, Slice
from chassis.db import Tx
from chassis.documents import expected_version
from chassis.http import READABLE, STORABLE, VIEWER, IfMatch, Marketer, Viewer
from chassis.pages import LIMIT, After, AfterVersion, Limit
from chassis.problems import Problem
from chassis.reached import head
from chassis.telemetry import get_logger
from chassis.websites import theirs, visible
from conditions.context import FIELDS
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from msgspec.json import encode

from segment_svc import catalog, definitions, handover, identities, positions, reads, store
from segment_svc.answers import (
    AskedSegments,
    Backfills,
    Members,
    Positions,
    Preview,
    Profile,
    Segments,
    StoredSegment,
    Why,
)
from segment_svc.catalog import Stored
from segment_svc.deps import Deps
from segment_svc.domain import profile as people
from segment_svc.domain.definition import request_fields
from segment_svc.domain.facts import view
from segment_svc.flows.ingest import HEADERS, Ingest
from segment_svc.flows.preview import latest_rules, preview_of
from segment_svc.flows.save_segment import Change, delete_segment, save_segment
from segment_svc.schemas import Choice, Definition, Draft, Events, Named, NewDefinition, PartitionNumber
from segment_svc.store import Row

log = get_logger("api")
router = APIRouter(prefix="/v1")
merchants = APIRouter(prefix="/v1", dependencies=[VIEWER])


def deps_of(request: Request) -> Deps:
    """What app.py put on the application."""
    deps: Deps = request.app.state.deps
    return deps


DepsDep = Annotated[Deps, Depends(deps_of)]


def _view(stored: Stored) -> dict[str, Any]:
    return {
        "id": stored.id,
        "key": stored.key,
        "version": stored.version,
        "live_version": stored.live_version,
        "quarantined": stored.quarantined,
        "request_fields": sorted(request_fields(stored.body.get("condition"))),
        **stored.body,
    }


async def _look(tx: Tx, identity: str) -> Row | None:
    try:
        return await store.look(tx, identity)
    except store.Unreadable:
        raise Problem("profile-unreadable", 409, "The state of this person cannot be read") from None
    except people.NewerState:
        raise _newer() from None


def _newer() -> Problem:
    title = "The state of this person is of a newer version, which is being rolled out"
    return Problem("profile-newer", 503, title, headers={"retry-after": "5"})


async def _stored(deps: Deps, key: str, reader: Actor) -> Stored:
    async with deps.db.tx() as tx:
        stored = await catalog.read(tx, key)
    if stored is None or not visible(reader, stored.body):
        raise Problem("not-found", 404, "No such segment")
    return stored


@merchants.get("/segments", **says(Segments))
async def list_segments(deps: DepsDep, reader: Viewer, after: After = "", limit: Limit = LIMIT) -> JSONResponse:
    """A page of the segments that the reader may see, with their newest definitions."""
    async with deps.db.tx() as tx:
        found, more = await catalog.page(tx, reader=reader, after=after, limit=limit)
    return JSONResponse({"segments": [_view(s) for s in found], "next": more})


@merchants.post("/segments", status_code=201, dependencies=[STORABLE], **says(StoredSegment, 201))
async def create_segment(body: NewDefinition, deps: DepsDep, response: Response, actor: Marketer) -> dict[str, Any]:
    """Create a segment; an active one is backfilled and serves when that is complete."""
    content = body.model_dump(exclude={"key"})
    stored = await save_segment(deps, Change(body.key, content, None, actor))
    response.headers["etag"] = f'"{stored.version}"'
    return _view(stored)


@merchants.post("/segments/preview", dependencies=[STORABLE], **says(Preview))
async def preview(body: Draft, deps: DepsDep, reader: Viewer) -> dict[str, Any]:
    """How many people a condition would match: exact below 2,000 profiles, else an estimate with a 95 % margin.

    What takes long is estimated from fewer people. A few previews are made at a time; who waits too long is told to come again.
    """
    return await preview_of(deps, body.model_dump(), reader=reader)


@merchants.post("/segments/named", dependencies=[STORABLE], **says(AskedSegments))
async def named(body: Named, deps: DepsDep, reader: Viewer) -> dict[str, Any]:
    """Of these keys, those of segments that the reader may see, with what each depends on of a request."""
    async with deps.db.tx() as tx:
        found = await reads.conditions(tx, body.keys)
    return {
        "segments": [
            {"key": key, "request_fields": sorted(request_fields(said["condition"]))}
            for key, said in found
            if visible(reader, said)
        ]
    }


@merchants.get("/segments/{key}", **says(StoredSegment))
async def get_segment(key: str, deps: DepsDep, response: Response, reader: Viewer) -> dict[str, Any]:
    """One segment."""
    stored = await _stored(deps, key, reader)
    response.headers["etag"] = f'"{stored.version}"'
    return _view(stored)


@merchants.put("/segments/{key}", dependencies=[STORABLE], **says(StoredSegment))
async def put_segment(
    key: str, body: Definition, deps: DepsDep, response: Response, actor: Marketer, if_match: IfMatch = None
) -> dict[str, Any]:
    """Save a new version. The old one serves until everybody has been computed by the new one."""
    stored = await save_segment(deps, Change(key, body.model_dump(), expected_version(if_match), actor))
    response.headers["etag"] = f'"{stored.version}"'
    return _view(stored)


@merchants.delete("/segments/{key}", status_code=204)
async def remove_segment(key: str, deps: DepsDep, actor: Marketer, if_match: IfMatch = None) -> None:
    """Delete a segment that nobody uses."""
    await delete_segment(deps, key, expected=expected_version(if_match), actor=actor)


@merchants.get("/segments/{key}/versions", **says(Versions))
async def list_segment_versions(
    key: str, deps: DepsDep, reader: Viewer, after: AfterVersion = None, limit: Limit = LIMIT
) -> JSONResponse:
    """A page of who saved what, newest first, of the versions that the reader may see."""
    stored = await _stored(deps, key, reader)
    async with deps.db.tx() as tx:
        return JSONResponse(await catalog.versions(tx, stored.id, reader=reader, after=after, limit=limit))


@merchants.get("/segments/{key}/members", **says(Members))
async def list_members(
    key: str, deps: DepsDep, reader: Viewer, after: str = "", limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, Any]:
    """Matched customers and visitors: a page, and the count of the whole list."""
    stored = await _stored(deps, key, reader)
    async with deps.db.tx() as tx:
        rows = await reads.members(tx, stored.id, after=after, most=limit)
        return {
            "count": await reads.count(tx, stored.id),
            "members": rows,
            "next": rows[-1]["profile"] if len(rows) == limit else None,
        }


@merchants.get("/segments/{key}/members.csv")
async def export_members(key: str, deps: DepsDep, reader: Viewer) -> StreamingResponse:
    """The whole list, streamed."""
    stored = await _stored(deps, key, reader)
    return StreamingResponse(reads.export(deps.db, stored.id), media_type="text/csv")


@merchants.get("/segments/{key}/explain", **says(Why))
async def explain(
    key: str,
    profile: str,
    request: Request,
    deps: DepsDep,
    reader: Viewer,
    at: Annotated[int | None, Query(ge=0, lt=2**53)] = None,
) -> dict[str, Any]:
    """Why a person is in or out: per node the value seen and when it flips; since when; and whether at `at`.

    Parameters named like context fields are the request to explain.
    """
    stored, rules = await _stored(deps, key, reader), await latest_rules(deps)
    async with deps.db.tx() as tx:
        row = await _look(tx, profile)
        owner = row.key if row else profile
        past = await reads.history(tx, owner, stored.id)
        member_at = None if at is None else await reads.was_member(tx, owner, stored.id, at)
    if key not in rules.ruleset.trees:
        detail = f"It is quarantined: {stored.quarantined}" if stored.quarantined else ""
        raise Problem("not-live", 409, "No version of this segment is live", detail=detail)
    person = (row or store.unmet(profile)).profile
    context = {name: value for name, value in request.query_params.items() if name in FIELDS}
    why = rules.ruleset.explain(key, person, deps.clock.now_ms(), who=owner, context=context)
    answer = {"segment": key, "profile": owner, "known": row is not None, "why": why, "transitions": past}
    return answer if at is None else {**answer, "at": at, "member_at": member_at}


@merchants.get("/profiles/{identity:path}", **says(Profile))
async def get_profile(identity: str, deps: DepsDep, reader: Viewer) -> dict[str, Any]:
    """What is known of a person, and the segments they are in that the reader may see."""
    async with deps.db.tx() as tx:
        row = await _look(tx, identity)
        if row is None:
            raise Problem("not-found", 404, "No such profile")
        names = await identities.names_of(tx, [row.key])
        standing, hidden = await reads.standing(tx, row.key), await catalog.hidden(tx, reader)
    return {
        "profile": row.key,
        "identities": names[row.key],
        "kind": row.profile.kind,
        "version": row.version,
        "next_flip_at": row.next_flip_at,
        "segments": [found for found in standing if found["segment"] not in hidden],
        "facts": view(row.profile),
    }


@merchants.get("/backfills", **says(Backfills))
async def list_backfills(deps: DepsDep, reader: Viewer) -> dict[str, Any]:
    """Progress of the latest backfills, with the segments that the reader may see."""
    async with deps.db.tx() as tx:
        found, hidden = await reads.backfills(tx), await catalog.hidden(tx, reader)
    return {"backfills": [{**b, "segments": [key for key in b["segments"] if key not in hidden]} for b in found]}


@router.get("/definitions")
async def get_definitions(deps: DepsDep) -> dict[str, Any]:
    """What a reader needs to turn documents into segments: atoms, request-time remainders, the stranger's bits."""
    rules = await latest_rules(deps)
    async with deps.db.tx() as tx:
        changes = await reads.releases(tx, 200)
    durable = rules.ruleset.is_durable
    segments = [
        {
            "id": d.id,
            "key": d.key,
            "websites": list(d.websites),
            "applies_to": d.applies_to,
            "atom": d.atoms[0] if durable(d.key) else None,
            "epoch": d.epoch,
            "since": d.since,
            "residual": None if durable(d.key) else rules.ruleset.residuals[d.key],
        }
        for d in rules.live
    ]
    empty = {kind: store.to_bytes(rules.ruleset.empty_bits(kind)).hex() for kind in ("visitor", "customer")}
    return {"version": rules.version, "empty": empty, "segments": segments, "changes": changes}


@router.get("/head")
async def get_head(deps: DepsDep) -> dict[str, Any]:
    """The version of the newest release, as the database says now, whatever this process serves; see head. `home`: the run of
    Redis that documents of people are handed to, whichever this process reaches."""
    async with deps.db.tx() as tx:
        said = await head(tx, deps.rulebook.seen(await definitions.head(tx)), deps.reached)
        return {**said, "home": await tx.fetchval(handover.HOME) or None}


@merchants.get("/positions", **says(Positions))
async def list_positions(deps: DepsDep) -> dict[str, Any]:
    """Where every partition is to be read next, and why it is halted, if it is."""
    async with deps.db.tx() as tx:
        return {"positions": await positions.read_all(tx)}


@merchants.put("/positions/{topic}/{partition}", status_code=204)
async def put_position(topic: str, partition: PartitionNumber, body: Choice, deps: DepsDep, actor: Marketer) -> None:
    """Choose where a halted partition goes on: at the earliest record there is, or at an offset."""
    theirs(actor, ())  # the pipe is everybody's
    offset = EARLIEST if body.from_ == "earliest" else body.from_
    async with deps.db.tx() as tx:
        if not await positions.choose(tx, topic, partition, offset):
            if await positions.known(tx, topic, partition):
                raise Problem("not-halted", 409, "The partition is not halted: it is being read")
            raise Problem("not-found", 404, "Nobody ever read this partition")
    log.warning("position_chosen", topic=topic, partition=partition, offset=offset, actor=actor.subject)


@router.post("/events", status_code=202, dependencies=[READABLE])
async def post_events(body: Events, deps: DepsDep) -> dict[str, Any]:
    """Apply events without Kafka, by the same flow; what is not applied is named with the reason."""
    batch = uuid.uuid4().hex
    records = [Record(f"http-{batch}", None, encode(e), HEADERS, 0, i) for i, e in enumerate(body.events)]
    try:
        receipt = await Ingest(deps, logged=False)([Slice(records[0].topic, 0, 0, len(records), records)])
    except store.Conflict:
        raise Problem("busy", 503, "Others change the same people", headers={"retry-after": "1"}) from None
    except people.NewerState:
        raise _newer() from None
    rejected = [{"pointer": f"/events/{d.record.offset}", "reason": d.reason, "detail": d.detail} for d in receipt.dead]
    return {"outcomes": receipt.outcomes, "rejected": rejected}
