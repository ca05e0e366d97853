"""Called by GET /v1/explain. Puts together why a person sees what they see: segments, blocks, promotions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from conditions.context import FIELDS

from gateway.deps import Deps
from gateway.domain import targeting
from gateway.flows.decide import audience
from gateway.keys import ApiKey
from gateway.upstreams import CONTENT, PROMO, SEGMENT


async def explain(
    deps: Deps, key: ApiKey, *, profile: str, slots: list[str], context: Mapping[str, Any]
) -> dict[str, Any]:
    """Per relevant segment why in or out; per slot which rule failed for which block; which promotions are theirs.

    `context` is the request to explain: country, region, locale and the like.
    """
    now_ms = deps.clock.now_ms()
    locale = str(context.get("locale") or "*")
    plan = deps.decider.knowledge.plan(key.website, sorted(set(slots)), locale)
    who = await audience(deps.decider, profile.encode(), now_ms)
    refs = (*plan.durable, *plan.late)
    late = targeting.late_bits(deps.decider.knowledge.definitions, plan.late, who.atoms, context, now_ms)
    inside = [r.key for r in targeting.members(refs, who.atoms, late)]
    common = {"website": key.website, "segments": inside, "group": who.group, "at_ms": now_ms}
    selected = {**common, "slots": list(plan.slots), "locale": locale, "explain": True}
    asked = {name: context[name] for name in FIELDS if context.get(name)}
    blocks, messages, *reasons = await asyncio.gather(
        deps.upstreams.json(CONTENT, "POST", "/v1/select", json=selected),
        deps.upstreams.json(PROMO, "POST", "/v1/messages", json=common),
        *(
            deps.upstreams.send(SEGMENT, "GET", f"/v1/segments/{r.key}/explain", params={**asked, "profile": profile})
            for r in refs
        ),
    )
    return {
        "profile": profile,
        "group": who.group,
        "segments": inside,
        "next_change_at": who.until,
        "why": {r.key: answer.json() for r, answer in zip(refs, reasons, strict=True)},
        "slots": blocks["explain"],
        "messages": messages["messages"],
    }
