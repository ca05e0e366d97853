"""Routes of promo-svc: parse, call a flow or the evaluator, answer. Internal: only other services get in."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from chassis import documents
from chassis.answers import Versions, says
from chassis.documents import expected_version
from chassis.http import STORABLE, VIEWER, IfMatch, Marketer, Server, Viewer
from chassis.pages import LIMIT, After, AfterVersion, Limit
from chassis.problems import faults
from chassis.reached import head
from chassis.websites import loses, named, theirs
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from promo_svc.answers import Rules, StoredRule
from promo_svc.deps import Deps
from promo_svc.domain import cart
from promo_svc.flows.redeem import Wish, finish, reserve
from promo_svc.flows.save_rule import delete_rule, disable_rule, save_rule
from promo_svc.reading import read_cart
from promo_svc.schemas import CartRule, ManyMessages, MessagesRequest, NewCartRule, Redemption
from promo_svc.snapshot import KIND, named_segments, published

LARGE, MANY = 8 * 1024, 25  # bytes, or lines: a cart with more of either is a large one
router = APIRouter(prefix="/v1")
merchants = APIRouter(prefix="/v1", dependencies=[VIEWER])
_encode = msgspec.json.Encoder().encode


Websites = Annotated[Sequence[str], Query()]


def deps_of(request: Request) -> Deps:
    """What app.py put on the application."""
    deps: Deps = request.app.state.deps
    return deps


DepsDep = Annotated[Deps, Depends(deps_of)]


@merchants.get("/cart-rules", **says(Rules))
async def list_rules(deps: DepsDep, reader: Viewer, after: After = "", limit: Limit = LIMIT) -> JSONResponse:
    """A page of the cart price rules that the reader may see."""
    async with deps.db.tx() as tx:
        found, more = await documents.page(tx, KIND, reader=reader, after=after, limit=limit)
    return JSONResponse({"rules": [d.view() for d in found], "next": more})


@merchants.post("/cart-rules", status_code=201, dependencies=[STORABLE], **says(StoredRule, 201))
async def create_rule(body: NewCartRule, deps: DepsDep, actor: Marketer) -> dict[str, Any]:
    """Create a rule."""
    content = body.model_dump(mode="json", exclude={"key"})
    return (await save_rule(deps, body.key, content, expected=None, actor=actor)).view()


@merchants.get("/cart-rules/{key}", **says(StoredRule))
async def get_rule(key: str, deps: DepsDep, response: Response, reader: Viewer) -> dict[str, Any]:
    """One rule."""
    async with deps.db.tx() as tx:
        found = await documents.read(tx, KIND, key, reader=reader)
    response.headers["etag"] = f'"{found.version}"'
    return found.view()


@merchants.put("/cart-rules/{key}", dependencies=[STORABLE], **says(StoredRule))
async def put_rule(
    key: str, body: CartRule, deps: DepsDep, actor: Marketer, if_match: IfMatch = None
) -> dict[str, Any]:
    """Save a new version of a rule."""
    expected = expected_version(if_match)
    return (await save_rule(deps, key, body.model_dump(mode="json"), expected=expected, actor=actor)).view()


@merchants.delete("/cart-rules/{key}", status_code=204)
async def remove_rule(key: str, deps: DepsDep, actor: Marketer, if_match: IfMatch = None) -> None:
    """Delete a rule."""
    await delete_rule(deps, key, expected=expected_version(if_match), actor=actor)


@merchants.post("/cart-rules/{key}/disable", **says(StoredRule))
async def post_rule_disable(key: str, deps: DepsDep, actor: Marketer) -> dict[str, Any]:
    """Switch a rule off at once."""
    return (await disable_rule(deps, key, actor=actor)).view()


@merchants.get("/cart-rules/{key}/versions", **says(Versions))
async def list_rule_versions(
    key: str, deps: DepsDep, reader: Viewer, after: AfterVersion = None, limit: Limit = LIMIT
) -> JSONResponse:
    """A page of who saved what, newest first."""
    async with deps.db.tx() as tx:
        return JSONResponse(await documents.history(tx, KIND, key, reader=reader, after=after, limit=limit))


@router.post("/evaluate")
async def post_evaluate(request: Request, deps: DepsDep) -> Response:
    """Apply the published rules to a cart, by the version asked for. Raises Problem 412 when that is not here, 503 busy."""
    body = await request.body()
    asked = read_cart(body)
    rules = published(deps.snapshot, asked.version)
    if len(body) <= LARGE and len(asked.lines) <= MANY:
        found = rules.evaluate(asked, deps.used_up())
    else:  # takes many rules long: others have their turn meanwhile
        found = await deps.carts.run(asked.website, rules.evaluate, asked, deps.used_up())
    return Response(_encode(found), media_type="application/json")


@router.post("/messages")
async def post_messages(body: MessagesRequest, deps: DepsDep) -> dict[str, Any]:
    """Labels of the rules without coupon that are for this visitor, and until when that is true.

    Asked for a version that is not here yet, or no more, it says which one is, and nothing else.
    """
    rules = deps.snapshot.at(body.version)
    if rules is None:
        return _nothing(deps)
    bounds = [b for r in rules.rules.rules for b in (r.starts_at, r.ends_at) if b is not None and b > body.at_ms]
    return {
        "version": rules.version,
        "messages": rules.messages(_empty_cart(body)),
        "tags": ["promo"],
        "next_change_at": min(bounds, default=None),
    }


@router.post("/messages-many")
async def post_messages_many(body: ManyMessages, deps: DepsDep) -> dict[str, Any]:
    """The same for many visitors at once, in order. An ask that is not valid gets no messages, and `refused` says why."""
    return {"answers": [await _judged(ask, deps) for ask in body.asks]}


async def _judged(ask: Any, deps: Deps) -> dict[str, Any]:
    try:
        asked = MessagesRequest.model_validate(ask)
    except ValidationError as error:
        return {**_nothing(deps), "refused": faults(error.errors())}
    return await post_messages(asked, deps)


def _empty_cart(body: MessagesRequest, *coupons: str) -> cart.Request:
    return cart.Request(
        body.website, body.at_ms, (), group=body.group, segments=frozenset(body.segments),
        unknown=frozenset(body.unknown), coupons=coupons, killed=frozenset(body.killed), version=body.version,
    )  # fmt: skip


def _nothing(deps: Deps) -> dict[str, Any]:
    return {"version": deps.snapshot.value.version, "messages": [], "tags": ["promo"], "next_change_at": None}


@router.get("/targeting")
async def get_targeting(deps: DepsDep) -> dict[str, Any]:
    """Per rule that can show a message, what that depends on; the segments any rule names; what the latest versions changed."""
    newest = deps.snapshot.value
    rules = [
        {
            "websites": sorted(r.websites),
            "segments": sorted(r.any_of | r.all_of | r.none_of),
            "groups": [] if r.all_groups else sorted(r.groups),
            "boundaries": sorted({at for at in (r.starts_at, r.ends_at) if at is not None}),
        }
        for r in newest.rules.rules
        if not r.coupon
    ]
    named = sorted({key for r in newest.rules.rules for key in r.any_of | r.all_of | r.none_of})
    return {"version": newest.version, "rules": rules, "segments": named, "changes": newest.changes}


@router.get("/head")
async def get_head(deps: DepsDep) -> dict[str, Any]:
    """The version of everything published, as the database says now, whatever this process serves; see head."""
    async with deps.db.tx() as tx:
        return await head(tx, await documents.head(tx), deps.reached)


@router.get("/usage")
async def get_usage(
    segment: str, deps: DepsDep, reader: Viewer, was: Websites = (), stays: Websites = ()
) -> dict[str, Any]:
    """Which rules, live or not, name a segment, by the names that the reader may know.

    Of a segment that `was` of some websites and `stays` of fewer, those that would be without it (`chassis.websites.loses`).
    """
    async with deps.db.tx() as tx:
        found = await documents.find(tx, KIND, naming=f'"{segment}"')
    users = {f"cart rule {d.key}": d.body for d in found if segment in named_segments(d) and loses(d.body, was, stays)}
    return {"users": named(users, reader)}


@router.post("/redemptions", status_code=201, dependencies=[STORABLE])
async def post_redemption(
    body: Redemption, deps: DepsDep, shop: Server, idempotency_key: Annotated[str, Header(min_length=1, max_length=200)]
) -> dict[str, Any]:
    """Hold one use of a coupon, for who would be given it for a cart."""
    theirs(shop, [body.website])
    asked = _empty_cart(body, body.coupon)
    return await reserve(deps, Wish(body.coupon, body.customer, idempotency_key, asked))


@router.post("/redemptions/{redemption}/confirm")
async def post_confirm(redemption: uuid.UUID, deps: DepsDep, shop: Server) -> dict[str, Any]:
    """The order was placed."""
    return await finish(deps, redemption, shop=shop, confirm=True)


@router.post("/redemptions/{redemption}/release")
async def post_release(redemption: uuid.UUID, deps: DepsDep, shop: Server) -> dict[str, Any]:
    """The order was not placed."""
    return await finish(deps, redemption, shop=shop, confirm=False)
