"""Routes of segment-svc: parse, call a flow or a read, answer. Internal: only other services get in."""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid
from collections.abc import Sequence
from time import thread_time
from typing import Annotated, Any

import msgspec
from chassis.bus import Record
from chassis.bus_places import EARLIEST, Slice
from chassis.db import Tx
from chassis.documents import expected_version
from chassis.http import READABLE, STORABLE, VIEWER, IfMatch, Marketer
from chassis.problems import Problem
from chassis.telemetry import get_logger
from chassis.websites import theirs
from conditions import Fault
from conditions.context import FIELDS
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from msgspec.json import encode

from segment_svc import definitions, positions, reads, store
from segment_svc.definitions import Rules, Stored
from segment_svc.deps import Deps
from segment_svc.domain import profile as people
from segment_svc.domain.checks import check
from segment_svc.domain.facts import view
from segment_svc.domain.probes import run_probes
from segment_svc.domain.ruleset import RuleRaised, RuleSet, atoms_needed
from segment_svc.flows.ingest import HEADERS, Ingest
from segment_svc.flows.quarantine import guarded
from segment_svc.flows.save_segment import Change, delete_segment, refuse, save_segment
from segment_svc.schemas import Choice, Definition, Draft, Events, NewDefinition, PartitionNumber
from segment_svc.store import Row

SAMPLE, PREVIEW_S, PREVIEW_WAIT_S = 2000, 1.0, 5.0
DRAFT = "@draft"  # as no segment can be called
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
        **stored.body,
    }


async def _rules(deps: Deps) -> Rules:
    """The rules of the newest release, read without keeping anybody waiting."""

    async def read() -> Rules:
        async with deps.db.tx() as tx:
            return await deps.rulebook.latest(tx)

    return await guarded(deps, read)


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


async def _stored(deps: Deps, key: str) -> Stored:
    async with deps.db.tx() as tx:
        stored = await definitions.read(tx, key)
    if stored is None:
        raise Problem("not-found", 404, "No such segment")
    return stored


@merchants.get("/segments")
async def list_segments(deps: DepsDep) -> dict[str, Any]:
    """Every segment with its newest definition."""
    async with deps.db.tx() as tx:
        return {"segments": [_view(s) for s in await definitions.read_all(tx)]}


@merchants.post("/segments", status_code=201, dependencies=[STORABLE])
async def create_segment(body: NewDefinition, deps: DepsDep, response: Response, actor: Marketer) -> dict[str, Any]:
    """Create a segment; an active one is backfilled and serves when that is complete."""
    content = body.model_dump(exclude={"key"})
    stored = await save_segment(deps, Change(body.key, content, None, actor))
    response.headers["etag"] = f'"{stored.version}"'
    return _view(stored)


@merchants.post("/segments/preview", dependencies=[STORABLE])
async def preview(body: Draft, deps: DepsDep) -> dict[str, Any]:
    """How many people a condition would match: exact below 2,000 profiles, else an estimate with a 95 % margin.

    What takes long is estimated from fewer people. A few previews are made at a time; who waits too long is told to come again.
    """
    try:
        async with asyncio.timeout(PREVIEW_WAIT_S):
            await deps.previews.acquire()
    except TimeoutError:
        raise Problem("busy", 503, "Other previews are being made", headers={"retry-after": "2"}) from None
    try:
        return await _preview(body, deps)
    finally:
        deps.previews.release()


async def _preview(body: Draft, deps: Deps) -> dict[str, Any]:
    rules = await _rules(deps)
    draft = definitions.as_definition(0, DRAFT, 0, {**body.model_dump(), "overrides": []})
    faults = check([*rules.live, draft], DRAFT, deps.rulebook.zone)
    refuse(faults)
    if atoms_needed(draft, deps.rulebook.zone) != 1:
        raise Problem("needs-request", 422, "A condition on the request cannot be counted in advance")
    # Beside the loop: one person may take long, and a draft has not been weighed before.
    fault = await asyncio.to_thread(run_probes, draft, deps.rulebook.zone, own_time=thread_time)
    refuse([fault] if fault else [])
    unused = max((a for d in rules.live for a in d.atoms), default=-1) + 1
    ruleset = RuleSet.compile([*rules.live, msgspec.structs.replace(draft, atoms=(unused,))], deps.rulebook.zone)
    async with deps.db.tx() as tx:
        drawn, total = await reads.sample(tx, SAMPLE)
    try:
        matched, looked_at = await asyncio.to_thread(_matched, ruleset, drawn, unused, now=deps.clock.now_ms())
    except RuleRaised:
        refuse([Fault("", "cannot-run", "it cannot be decided for everybody")])
    share = matched / looked_at if looked_at else 0.0
    exact = looked_at == total
    margin = (
        0.0 if exact else 1.96 * math.sqrt(max(share * (1 - share), 1 / max(1, looked_at)) / max(1, looked_at)) * total
    )
    return {
        "matched": matched,
        "sampled": looked_at,
        "profiles": total,
        "estimate": round(share * total),
        "margin95": round(margin),
        "exact": exact,
    }


def _matched(ruleset: RuleSet, drawn: Sequence[tuple[str, bytes]], bit: int, *, now: int) -> tuple[int, int]:
    """(how many have the bit, of how many looked at) within PREVIEW_S of work. Whose state cannot be read is left out."""
    matched, looked_at, began = 0, 0, thread_time()
    for key, state in drawn:
        with contextlib.suppress(ValueError, people.NewerState):
            person = people.decode(state)
            matched += ruleset.timeline(person, now, horizon_ms=0, key=key).bits >> bit & 1
            looked_at += 1
        if thread_time() - began > PREVIEW_S:
            break
    return matched, looked_at


@merchants.get("/segments/{key}")
async def get_segment(key: str, deps: DepsDep, response: Response) -> dict[str, Any]:
    """One segment."""
    stored = await _stored(deps, key)
    response.headers["etag"] = f'"{stored.version}"'
    return _view(stored)


@merchants.put("/segments/{key}", dependencies=[STORABLE])
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


@merchants.get("/segments/{key}/versions")
async def list_segment_versions(key: str, deps: DepsDep) -> dict[str, Any]:
    """Who saved what, newest first."""
    stored = await _stored(deps, key)
    async with deps.db.tx() as tx:
        return {"versions": await definitions.versions(tx, stored.id)}


@merchants.get("/segments/{key}/members")
async def list_members(
    key: str, deps: DepsDep, after: str = "", limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, Any]:
    """Matched customers and visitors: a page, and the count of the whole list."""
    stored = await _stored(deps, key)
    async with deps.db.tx() as tx:
        rows = await reads.members(tx, stored.id, after=after, most=limit)
        return {
            "count": await reads.count(tx, stored.id),
            "members": rows,
            "next": rows[-1]["profile"] if len(rows) == limit else None,
        }


@merchants.get("/segments/{key}/members.csv")
async def export_members(key: str, deps: DepsDep) -> StreamingResponse:
    """The whole list, streamed."""
    stored = await _stored(deps, key)
    return StreamingResponse(reads.export(deps.db, stored.id), media_type="text/csv")


@merchants.get("/segments/{key}/explain")
async def explain(
    key: str, profile: str, request: Request, deps: DepsDep, at: Annotated[int | None, Query(ge=0, lt=2**53)] = None
) -> dict[str, Any]:
    """Why a person is in or out: per node the value seen and when it flips; since when; and whether at `at`.

    Parameters named like context fields are the request to explain.
    """
    stored, rules = await _stored(deps, key), await _rules(deps)
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


@merchants.get("/profiles/{identity:path}")
async def get_profile(identity: str, deps: DepsDep) -> dict[str, Any]:
    """What is known of a person, and the segments they are in."""
    async with deps.db.tx() as tx:
        row = await _look(tx, identity)
        if row is None:
            raise Problem("not-found", 404, "No such profile")
        names = await store.identities(tx, [row.key])
        segments = await reads.standing(tx, row.key)
    return {
        "profile": row.key,
        "identities": names[row.key],
        "kind": row.profile.kind,
        "version": row.version,
        "next_flip_at": row.next_flip_at,
        "segments": segments,
        "facts": view(row.profile),
    }


@merchants.get("/backfills")
async def list_backfills(deps: DepsDep) -> dict[str, Any]:
    """Progress of the latest backfills."""
    async with deps.db.tx() as tx:
        return {"backfills": await reads.backfills(tx)}


@router.get("/definitions")
async def get_definitions(deps: DepsDep) -> dict[str, Any]:
    """What a reader needs to turn documents into segments: atoms, request-time remainders, the stranger's bits."""
    rules = await _rules(deps)
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
async def get_head(deps: DepsDep) -> dict[str, int]:
    """The version of the newest release, as the database says now, whatever this process serves."""
    async with deps.db.tx() as tx:
        return {"version": await definitions.head(tx)}


@merchants.get("/positions")
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
