"""Called by POST /v1/cart. Adds who asks (never taken from the body) to the cart and has promo-svc evaluate it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import httpx
import msgspec
from chassis.problems import Problem
from conditions.read import step

from gateway.adapters.keys import ApiKey
from gateway.adapters.upstreams import PROMO
from gateway.deps import Deps
from gateway.domain import cart, kills, membership
from gateway.domain.targeting import MOST_LOCALE, SLOTS, are_slots, epoch_of
from gateway.flows.decide import decided, late_bits, look_up

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
    who = await look_up(deps.decider, identity.encode() if identity else None, now_ms)
    release = deps.decider.knowledge.release
    definitions = release.definitions
    refs = [r for r in definitions.segments.values() if not r.websites or key.website in r.websites]
    late = late_bits(deps.decider, release, [r for r in refs if r.atom is None], who.seen(facts, {}), locale, now_ms)
    undefined = definitions.undefined(release.promo.get("segments", ()))
    standing = membership.standing(refs, undefined, who.atoms, late, epoch=who.epoch)
    asked = {name: body[name] for name in cart.FIELDS if name in body}
    asked |= {"website": key.website, "at_ms": now_ms, **who.asked(standing)}
    asked["membership_version"] = definitions.version
    asked["killed"] = kills.keys(deps.decider.knowledge.kills, "rule")
    found = await _evaluated(deps, asked)
    degraded = ["audience"] if who.epoch < epoch_of(refs) or not deps.decider.knowledge.loaded else []
    known = deps.decider.knowledge
    if found is None or not known.kills_known or kills.spoils(found, known.kills):
        found = cart.plain(body)
        degraded.append("promotions")
    if slots:
        plan_of, seen = (lambda r: r.plan(key.website, sorted(set(slots)), locale)), who.seen(facts, page)
        *_, answer = await decided(deps.decider, plan_of, lambda _: seen, who, now_ms)
        said = _decode(answer.body)
        found["slots"] = said["slots"]
        degraded += [part for part in said.get("degraded", ()) if part not in degraded]
    if key.kind != "secret":  # it names rules that are over, not begun, or for others
        del found["trace"]
    return {"degraded": degraded, **found} if degraded else found


async def _evaluated(deps: Deps, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """What promo-svc says, None while it says nothing. Raises Problem 413, 422 for a cart it refuses."""
    try:
        answer = await deps.upstreams.send(PROMO, "POST", "/v1/evaluate", json=asked)
        found: dict[str, Any] = _decode(answer.content)
    except (httpx.HTTPError, msgspec.DecodeError):
        return None
    if answer.status_code == 413:
        raise Problem("body-too-large", 413, "The cart is too large")
    if answer.status_code in (400, 422):
        raise Problem("invalid-request", 422, "The cart is not valid", errors=found.get("errors", []))
    return found if answer.status_code == 200 else None


def _asked(body: Mapping[str, Any]) -> tuple[list[str], str]:
    """The slots and the locale asked for along with a cart that is right as far as the gateway has to know."""
    slots, locale = body.get("slots", []), body.get("locale", "*")
    odd = islice((name for name in body if name not in (*cart.FIELDS, "slots", "locale")), MOST_NAMED)
    errors = [{"pointer": step(name), "detail": "does not belong here"} for name in odd]
    errors += [{"pointer": pointer, "detail": detail} for pointer, detail in cart.faults(body)]
    if not are_slots(slots):
        errors.append({"pointer": "/slots", "detail": SLOTS})
    if not isinstance(locale, str) or len(locale) > MOST_LOCALE:
        errors.append({"pointer": "/locale", "detail": f"a locale has up to {MOST_LOCALE} characters"})
    if errors:
        raise Problem("invalid-request", 422, "The cart is not valid", errors=errors)
    return slots, locale
