"""Called around an order. Adds whom a coupon is to be for, so that it is refused to whom a cart would not give it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from http.client import CREATED
from typing import Any

import httpx
from chassis.problems import Problem
from conditions.read import step
from fastapi import Response

from gateway.adapters.keys import ApiKey
from gateway.adapters.upstreams import PROMO, read, unavailable
from gateway.deps import Deps
from gateway.domain.said_of_carts import Redeemed
from gateway.flows import promotions
from gateway.flows.forward import answered
from gateway.flows.people import look_up
from gateway.flows.promotions import Shopper

FIELDS = ("coupon", "customer")


async def redeem(
    deps: Deps,
    key: ApiKey,
    body: Mapping[str, Any],
    *,
    idempotency_key: str,
    identity: str | None,
    facts: Mapping[str, str],
) -> Response:
    """What promo-svc says to a wish: of the shopper whose cookie or token is passed on, as with a cart, else of the customer.

    Raises Problem 422, 503.
    """
    errors = [{"pointer": step(name), "detail": "does not belong here"} for name in body if name not in FIELDS]
    customer = body.get("customer")
    if not isinstance(customer, str):
        errors.append({"pointer": "/customer", "detail": "is a text"})
    if errors:
        raise Problem("invalid-request", 422, "The request is not valid", errors=errors[:50])
    now_ms = deps.clock.now_ms()
    who = await look_up(deps.decider.pipe, (identity or f"c:{customer}").encode())
    shopper = Shopper(who, key.website, now_ms, facts)
    headers, before = {"idempotency-key": idempotency_key}, deps.decider.knowledge.kills
    said = await promotions.ask(deps, shopper, "/v1/redemptions", body, headers=headers, actor=key.actor)
    if said is None or said.answer.is_server_error:
        raise unavailable()
    try:
        given = read(said.answer, Redeemed) if said.answer.status_code == CREATED else None
    except httpx.HTTPError:
        raise unavailable() from None
    if given and f"rule:{given['rule']}" in deps.decider.knowledge.kills - before:
        await _take_back(deps, key, given["id"])
        raise Problem("coupon-not-available", 409, "The coupon cannot be used")
    return answered(said.answer)


async def _take_back(deps: Deps, key: ApiKey, redemption: str) -> None:
    """What was killed while it was on its way is not given. What cannot be taken back now ends by itself."""
    with contextlib.suppress(httpx.HTTPError):
        await deps.upstreams.send(PROMO, "POST", f"/v1/redemptions/{redemption}/release", actor=key.actor)
