"""The public routes off the hot path: context, collector, cart, coupons, explain. Each parses, calls a flow, answers."""

from __future__ import annotations

import secrets as random
from typing import Annotated, Any
from uuid import UUID

from chassis.answers import says
from chassis.http import json_of, require_json
from chassis.problems import Problem
from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import JSONResponse

from gateway.adapters.keys import ApiKey
from gateway.adapters.limits import block_of
from gateway.adapters.upstreams import PROMO
from gateway.deps import Deps
from gateway.domain.cart import MOST_ID, MOST_LINES
from gateway.domain.identity import CONTEXT, VISITOR, context_cookie, cookie_in, visitor_cookie
from gateway.domain.said_of_carts import Redeemed
from gateway.domain.targeting import MOST_SLOT, MOST_SLOTS
from gateway.flows.cart import price_cart
from gateway.flows.collect import MOST_EVENTS, collect
from gateway.flows.explain import explain
from gateway.flows.forward import forward
from gateway.flows.people import look_up
from gateway.flows.redeem import redeem
from gateway.lanes.request import request_of
from gateway.routes.answers import Accepted, Cart, Context, Explained

YEAR_S = 365 * 24 * 3600
PRICE_S = 60  # how long a price may be shown to who lost the segment it is for
router = APIRouter()


def deps_of(request: Request) -> Deps:
    """What app.py put on the application."""
    deps: Deps = request.app.state.deps
    return deps


DepsDep = Annotated[Deps, Depends(deps_of)]
KeyHeader = Annotated[str | None, Header(alias="x-api-key")]


async def storefront_of(deps: DepsDep, key: KeyHeader = None) -> ApiKey:
    """A storefront's key. Raises Problem 401, 403."""
    return deps.keys.require(key, ("publishable", "secret"))


async def server_of(deps: DepsDep, key: KeyHeader = None) -> ApiKey:
    """The key of a storefront's server. Raises Problem 401, 403."""
    return deps.keys.require(key, ("secret",))


Storefront = Annotated[ApiKey, Depends(storefront_of)]
Server = Annotated[ApiKey, Depends(server_of)]


def identity(request: Request, deps: Deps) -> str | None:
    """The verified identity: the customer of a token, else the visitor of a cookie. Raises Problem 401."""
    found = deps.reader.identity(request_of(request.scope))
    return None if found is None else found.decode()


def _cookie(response: Response, name: str, value: str, max_age: int) -> None:
    response.set_cookie(name, value, max_age=max_age, path="/", secure=True, httponly=True, samesite="lax")


@router.get("/v1/context", **says(Context))
async def get_context(
    request: Request,
    deps: DepsDep,
    key: Storefront,
    consent: bool = True,
    logout: bool = False,
    api_key: KeyHeader = None,
) -> Response:
    """Issue or refresh the visitor id and the signed context. Without consent: no id, and the stranger's context."""
    asked = request_of(request.scope)
    visitor, cookie = (
        deps.reader.visitor(asked.fields.get(b"cookie")),
        cookie_in(asked.fields.get(b"cookie", b"")),
    )
    response = JSONResponse({}, headers={"cache-control": "no-store"})
    if logout or (visitor is None and consent):
        name, cookie = visitor_cookie(deps.rings.visitor, random.token_bytes(16))
        visitor = b"v:" + name.encode()
        _cookie(response, VISITOR, cookie, YEAR_S)
    now_ms = deps.clock.now_ms()
    who = None if logout or not consent else deps.reader.identity(asked) or visitor
    found = await look_up(deps.decider.pipe, who)
    release = deps.decider.knowledge.current()  # nothing is waited for from here on: what is signed is of one release
    known = found.known(release.definitions, now_ms)
    visible, seen = release.visible(key.website), known.seen
    steered = any(d.name in visible.steering and d.read(seen) for d in visible.codes)
    expires_ms = now_ms + (min(PRICE_S, deps.settings.context_s) if steered else deps.settings.context_s) * 1000
    expires_s = min(expires_ms, known.until or expires_ms) // 1000
    # Else a member would be a stranger to every edge as long as a cookie lives.
    said = known.epoch >= release.definitions.epoch and not release.withheld and deps.decider.knowledge.loaded
    if visitor is not None and said:
        codes, version = release.codes(key.website, seen), release.definitions.version
        value = context_cookie(deps.rings.context, codes, expires_s, cookie, api_key or "", version=version)
        _cookie(response, CONTEXT, value, deps.settings.context_s)
    response.body = deps.encode({"visitor": visitor is not None, "expires_at": expires_s})
    response.headers["content-length"] = str(len(response.body))
    return response


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """What OpenAPI says of a body that a flow checks itself."""
    schema = {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


EVENTS = _object(
    {
        "events": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_EVENTS,
            "items": {"type": "object", "description": "A CloudEvent; see docs/api/asyncapi.json"},
        }
    },
    "events",
)
LINE = {
    "type": "object",
    "required": ["id", "price"],
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": MOST_ID},
        "sku": {"type": "string"},
        "price": {"type": "integer", "minimum": 0, "description": "minor units of one piece"},
        "quantity": {"type": "integer", "minimum": 1, "default": 1},
        "categories": {"type": "array", "items": {"type": "string"}},
        "attributes": {"type": "object"},
        "discountable": {"type": "boolean", "default": True},
    },
}
CART = _object(
    {
        "lines": {"type": "array", "maxItems": MOST_LINES, "items": LINE},
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$", "default": "EUR", "description": "ISO 4217"},
        "shipping": {"type": "integer", "minimum": 0, "description": "minor units"},
        "coupons": {"type": "array", "items": {"type": "string"}},
        "slots": {
            "type": "array",
            "maxItems": MOST_SLOTS,
            "items": {"type": "string", "minLength": 1, "maxLength": MOST_SLOT},
        },
        "locale": {"type": "string"},
    },
    "lines",
)


@router.post("/v1/events", status_code=202, openapi_extra=EVENTS, **says(Accepted, 202))
async def post_events(request: Request, deps: DepsDep, key: Storefront) -> dict[str, Any]:
    """Take a batch of events. A browser may say what it did itself; orders and customers need a secret key."""
    body, asked = await _object_of(request, deps, nul=True), request_of(request.scope)
    visitor, events = deps.reader.visitor(asked.fields.get(b"cookie")), body.get("events")
    if key.kind != "secret" and isinstance(events, list):
        deps.limiter.take_events(len(events), person=visitor, address=deps.reader.address(asked))
    return await collect(deps, key, body, visitor=None if visitor is None else visitor.decode().removeprefix("v:"))


@router.post("/v1/cart", openapi_extra=CART, **says(Cart))
async def post_cart(request: Request, deps: DepsDep, key: Storefront) -> Response:
    """Lines with discounts and hints, for the verified identity, and the slots asked for along with it.

    Whoever asks with a secret key is told the trace too: per rule why it does nothing.
    """
    asked, who = request_of(request.scope), identity(request, deps)
    facts, page = deps.reader.facts(asked), deps.reader.page(asked)
    found = await price_cart(deps, key, await _object_of(request, deps), identity=who, facts=facts, page=page)
    return Response(deps.encode(found), media_type="application/json", headers={"cache-control": "private, no-store"})


REDEMPTION = _object({"coupon": {"type": "string"}, "customer": {"type": "string"}}, "coupon", "customer")


@router.post("/v1/redemptions", status_code=201, openapi_extra=REDEMPTION, **says(Redeemed, 201))
async def post_redemption(
    request: Request, deps: DepsDep, key: Server, idempotency_key: Annotated[str, Header(min_length=1, max_length=200)]
) -> Response:
    """Hold one use of a coupon for 15 minutes; for servers only, which pass on the shopper's cookie or token as with a cart.

    Without them it is the customer named.
    """
    who, facts = identity(request, deps), deps.reader.facts(request_of(request.scope))
    body = await _object_of(request, deps)
    async with deps.redeeming.of(key.website):
        return await redeem(deps, key, body, idempotency_key=idempotency_key, identity=who, facts=facts)


@router.post("/v1/redemptions/{redemption}/confirm", **says(Redeemed))
async def post_confirm(request: Request, redemption: UUID, deps: DepsDep, key: Server) -> Response:
    """The order was placed."""
    async with deps.redeeming.of(key.website):
        return await forward(deps, request, PROMO, f"/v1/redemptions/{redemption}/confirm", actor=key.actor)


@router.post("/v1/redemptions/{redemption}/release", **says(Redeemed))
async def post_release(request: Request, redemption: UUID, deps: DepsDep, key: Server) -> Response:
    """The order was not placed."""
    async with deps.redeeming.of(key.website):
        return await forward(deps, request, PROMO, f"/v1/redemptions/{redemption}/release", actor=key.actor)


@router.get("/v1/explain", **says(Explained))
async def get_explain(
    request: Request,
    deps: DepsDep,
    slots: str,
    profile: str | None = None,
    website: str | None = None,
    key: KeyHeader = None,
) -> Response:
    """Why a person sees what they see, in the context the other parameters give; for servers and the admin, of their websites.

    Without `profile` it is the shopper of the cookie or token that the shop's server passes on.
    """
    who = deps.keys.require(key, ("secret", "admin"))
    person = identity(request, deps) if profile is None else profile
    if person is None:
        errors = [{"pointer": "/profile", "detail": "is needed without a shopper's visitor cookie or token"}]
        raise Problem("invalid-request", 422, "The request names nobody", errors=errors)
    context = dict(request.query_params)
    named = [s for s in slots.split(",") if s]
    found = await explain(deps, who, website=who.at(website), profile=person, slots=named, context=context)
    return Response(deps.encode(found), media_type="application/json", headers={"cache-control": "private, no-store"})


async def _object_of(request: Request, deps: Deps, *, nul: bool = False) -> dict[str, Any]:
    require_json(request)
    sender = block_of(deps.reader.address(request_of(request.scope)))
    body = await json_of(await request.body(), sender, nul=nul)
    if not isinstance(body, dict):
        raise Problem("invalid-request", 422, "The body is a JSON object", pointers=[""])
    return body
