"""Called by GET /v1/explain. Puts together why a person sees what they see: segments, blocks, promotions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import httpx
from chassis.auth import Actor
from chassis.problems import Problem
from conditions.context import FIELDS, PAGE

from gateway.adapters.keys import ApiKey
from gateway.adapters.upstreams import CONTENT, PROMO, SEGMENT, read, unavailable
from gateway.deps import Deps
from gateway.domain import kills, membership
from gateway.domain.said import Messages, Selected
from gateway.domain.targeting import MOST_LOCALE, SLOTS, are_slots
from gateway.flows import naming
from gateway.flows.decide import context_of
from gateway.flows.people import look_up
from gateway.lanes.request import MOST_VALUE, PARAMETERS

PROFILE = re.compile(r"[vc]:.{1,200}", re.DOTALL)


async def explain(
    deps: Deps, key: ApiKey, *, website: str, profile: str, slots: list[str], context: Mapping[str, str]
) -> dict[str, Any]:
    """At a website, per relevant segment why in or out; per slot which rule failed for which block; which promotions are theirs.

    `context` is the query of the request to explain, as a page sends it, and any field of FIELDS by its name (country, device,
    hour...); what it does not say is as in a request that says nothing, now; a customer is logged in, nobody else. Without
    `consent` one counts as a stranger: `why` is then what would hold with it. A segment that cannot be asked is named to who may
    see it. Raises Problem 422, 503.
    """
    locale = context.get("locale") or "*"
    _asked(profile, slots, locale)
    now_ms, slots = deps.clock.now_ms(), sorted(set(slots))
    release = deps.decider.knowledge.release
    plan = release.plan(website, slots, locale)
    who = (await look_up(deps.decider.pipe, profile.encode())).known(release.definitions, now_ms)
    refs = (*plan.durable, *plan.late)
    page = {name: context.get(PARAMETERS.get(name, name), "")[:MOST_VALUE] for name in PAGE}
    supposed = context_of(deps.decider, who.asking({}, {k: v for k, v in page.items() if v}), locale, now_ms)
    named = FIELDS.keys() & context.keys() - {"logged_in"}  # nobody says so of themselves, here either
    supposed |= {name: context[name][:MOST_VALUE] for name in named if context[name]}
    late = membership.late_bits(release.definitions, plan.late, who.seen.atoms, supposed, now_ms)
    standing = membership.standing(refs, plan.undefined, who.seen.atoms, late, epoch=who.epoch)
    common = {"website": website, "at_ms": now_ms, **who.asked(standing)}
    priced = {**common, **who.asked(membership.for_prices(standing, refs))}
    killed = deps.decider.knowledge.kills
    selected = {**common, "slots": slots, "locale": locale, "explain": True, "killed": kills.keys(killed, "block")}
    priced["killed"] = kills.keys(killed, "rule")
    asked = {name: value for name, value in supposed.items() if value not in (None, "")}
    why, reader = (f"/v1/segments/{r.key}/explain" for r in refs), Actor(key.id, "viewer", (website,))
    try:
        blocks, messages, *reasons = await asyncio.gather(
            deps.merchants.json(CONTENT, "POST", "/v1/select", Selected, json=selected, actor=key.actor),
            deps.merchants.json(PROMO, "POST", "/v1/messages", Messages, json=priced),
            *(
                deps.merchants.send(SEGMENT, "GET", path, actor=reader, params={**asked, "profile": profile})
                for path in why
            ),
        )
        if any(answer.is_server_error for answer in reasons) or "explain" not in blocks:
            raise unavailable()
        said = [read(answer, dict[str, Any]) for answer in reasons]
    except httpx.HTTPError:
        raise unavailable() from None
    return {
        "profile": profile,
        "consent": who.consent,
        "group": who.seen.group,
        "segments": standing.inside,
        "unknown": await _named(deps, standing.unknown, key.actor),
        "next_change_at": who.until,
        "why": {r.key: answer for r, answer in zip(refs, said, strict=True)},
        "slots": blocks["explain"],
        "messages": messages["messages"],
    }


async def _named(deps: Deps, unknown: list[str], who: Actor) -> list[str]:
    """Those that somebody may see: blocks and rules of all websites may be for segments of others."""
    if not who.websites or not unknown:
        return unknown
    seen = await naming.seen(deps, unknown, Actor(who.subject, "viewer", who.websites))
    return [key for key in unknown if key in seen]


def _asked(profile: str, slots: list[str], locale: str) -> None:
    errors = []
    if not PROFILE.fullmatch(profile):
        errors.append({"pointer": "/profile", "detail": "is v: and a visitor's id, or c: and a customer's"})
    if not slots or not are_slots(slots):
        errors.append({"pointer": "/slots", "detail": SLOTS})
    if len(locale) > MOST_LOCALE:
        errors.append({"pointer": "/locale", "detail": f"has up to {MOST_LOCALE} characters"})
    if errors:
        raise Problem("invalid-request", 422, "The request is not valid", errors=errors)
