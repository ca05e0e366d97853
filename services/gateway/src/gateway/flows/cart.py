"""Called by POST /v1/cart. Adds who asks (never taken from the body) to the cart and has promo-svc evaluate it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import httpx
import msgspec
from chassis.problems import Problem
from conditions.read import step
from contracts.currencies import EXPONENTS

from gateway.adapters.keys import ApiKey
from gateway.adapters.upstreams import read
from gateway.deps import Deps
from gateway.domain import cart, kills
from gateway.domain.dimensions import Seen
from gateway.domain.membership import Known
from gateway.domain.release import Release
from gateway.domain.said_of_carts import Faults, Priced
from gateway.domain.targeting import MOST_LOCALE, SLOTS, Plan, are_slots
from gateway.flows import promotions
from gateway.flows.decide import decided
from gateway.flows.people import look_up
from gateway.flows.promotions import Shopper

MOST_NAMED = 50
_decode = msgspec.json.Decoder().decode


async def price_cart(
    deps: Deps,
    key: ApiKey,
    body: dict[str, Any],
    *,
    identity: str | None,
    facts: Mapping[str, str],
    page: Mapping[str, str],
) -> dict[str, Any]:
    """The evaluated cart; prices without promotions while promo-svc is away. `degraded` names what could not be asked.
    Raises Problem 422.

    `facts` are what is trusted of the request. What the page says of itself steers the slots, never a price.
    """
    slots, locale = _asked(body)
    now_ms = deps.clock.now_ms()
    who = await look_up(deps.decider.pipe, identity.encode() if identity else None)
    found, degraded = await _evaluated(deps, Shopper(who, key.website, now_ms, facts, locale), body)
    if found is None or kills.spoils(found, deps.decider.knowledge.kills):
        found = cart.plain(body)
        degraded.append("promotions")
    if slots:

        def by(release: Release) -> tuple[Plan, Known, Seen]:
            known = who.known(release.definitions, now_ms)
            return release.plan(key.website, sorted(set(slots)), locale), known, known.asking(facts, page)

        *_, answer = await decided(deps.decider, by, now_ms)
        said = _decode(answer.body)
        found["slots"] = said["slots"]
        degraded += [part for part in said.get("degraded", ()) if part not in degraded]
    if key.kind != "secret":  # it names rules that are over, not begun, or for others
        del found["trace"]
    return {"degraded": degraded, **found} if degraded else found


async def _evaluated(deps: Deps, shopper: Shopper, body: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """What promo-svc says, None while it says nothing; and what is degraded. Raises Problem 413, 422 for a cart it refuses."""
    asked = {name: body[name] for name in cart.FIELDS if name in body}
    said = await promotions.ask(deps, shopper, "/v1/evaluate", asked)
    if said is None:
        return None, ["audience"] if shopper.known(deps.decider.knowledge.release.definitions).degraded else []
    degraded, status = [] if said.sure else ["audience"], said.answer.status_code
    if status == 413:
        raise Problem("body-too-large", 413, "The cart is too large")
    try:
        if status in (400, 422):
            errors = read(said.answer, Faults).get("errors", [])
            raise Problem("invalid-request", 422, "The cart is not valid", errors=errors)
        if status != 200:
            return None, degraded
        return {**read(said.answer, Priced), "membership_version": said.membership_version}, degraded
    except httpx.HTTPError:
        return None, degraded


def _asked(body: Mapping[str, Any]) -> tuple[list[str], str]:
    """The slots and the locale asked for along with a cart that is right as far as the gateway has to know."""
    slots, locale = body.get("slots", []), body.get("locale", "*")
    odd = islice((name for name in body if name not in (*cart.FIELDS, "slots", "locale")), MOST_NAMED)
    errors = [{"pointer": step(name), "detail": "does not belong here"} for name in odd]
    errors += [{"pointer": pointer, "detail": detail} for pointer, detail in cart.faults(body, EXPONENTS)]
    if not are_slots(slots):
        errors.append({"pointer": "/slots", "detail": SLOTS})
    if not isinstance(locale, str) or len(locale) > MOST_LOCALE:
        errors.append({"pointer": "/locale", "detail": f"a locale has up to {MOST_LOCALE} characters"})
    if errors:
        raise Problem("invalid-request", 422, "The cart is not valid", errors=errors)
    return slots, locale
