"""Called per storefront GET. Reads one document, maps it to the segments that matter, answers from finished bodies.

The hot path: no parsing of what was parsed before, no HTTP call, no framework. A miss asks content-svc and promo-svc
once for everybody who waits for the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
from chassis.clock import Clock
from chassis.pipe import Pipe

from gateway.adapters.upstreams import CONTENT, PROMO, Coalescer
from gateway.domain import dimensions, kills, membership
from gateway.domain.answer import Answer, decode, encode, finish, merge, with_unknown
from gateway.domain.dimensions import Seen
from gateway.domain.kept import Kept
from gateway.domain.membership import NONE_LATE, Known, Late
from gateway.domain.release import OF_CONTENT, OF_PROMO, Release
from gateway.domain.targeting import Plan, SegmentRef
from gateway.flows.knowledge import Knowledge
from gateway.flows.people import Person
from gateway.telemetry import DECISIONS, DEGRADED

MOST_LAST_GOOD = 32 << 20  # bytes
AGAIN_S = 0.05  # until a replica that is a moment behind is asked once more
NOTHING: Mapping[str, Any] = {"slots": {}, "messages": [], "tags": []}
_miss = DECISIONS.labels(source="services")


@dataclass(frozen=True, slots=True)
class Decider:
    """What a decision needs."""

    knowledge: Knowledge
    pipe: Pipe[Person]
    content: Coalescer
    promo: Coalescer
    clock: Clock
    zone: ZoneInfo
    budget_s: float
    share_s: int
    last_good: Kept[Any, bytes]


class Part(NamedTuple):
    """What a service contributes, whether it is less than it should be, and whether it has left the release behind."""

    said: Mapping[str, Any]
    degraded: bool = False
    gone: bool = False


async def decided(
    decider: Decider, ask: Callable[[Release], tuple[Plan, Known, Seen]], now_ms: int
) -> tuple[Release, Plan, Known, Seen, Answer]:
    """The answer for one request, by which release; `ask` is told that, and says what is asked by it, what is known of who asks,
    and what of that counts. Raises what it raises.

    When a service has left the release behind, it is made by the next one.
    """
    release = decider.knowledge.current()
    plan, known, seen = ask(release)
    answer = await decide(decider, release, plan, known, seen, now_ms)
    if answer.stopgap and await decider.knowledge.newer_than(release, decider.budget_s):
        release = decider.knowledge.current()
        plan, known, seen = ask(release)
        answer = await decide(decider, release, plan, known, seen, now_ms)
    return release, plan, known, seen, answer


def ready(decider: Decider, release: Release, plan: Plan, known: Known, seen: Seen, now_ms: int) -> Answer | None:
    """The answer for one request, if it was made before."""
    late = late_bits(decider, release, plan.late, seen, plan.said, now_ms) if plan.late else NONE_LATE
    answer = release.answers.get(_key(plan, known, seen, late))
    if answer is None or answer.until <= now_ms:
        return None
    decider.knowledge.hits += 1
    return with_unknown(answer, plan) if plan.unknown else answer


def _key(plan: Plan, known: Known, seen: Seen, late: Late) -> Any:
    groups = tuple([d.read(seen) for d in plan.groups]) if plan.groups else ()
    epoch = known.epoch if known.epoch < plan.epoch else plan.epoch
    return plan.website, plan.slots, plan.locale, seen.atoms & plan.bits, late, groups, epoch


async def decide(decider: Decider, release: Release, plan: Plan, known: Known, seen: Seen, now_ms: int) -> Answer:
    """The answer for one request, by one release, which `plan` is of. Always one, whatever is down."""
    late = late_bits(decider, release, plan.late, seen, plan.said, now_ms) if plan.late else NONE_LATE
    answer = ready(decider, release, plan, known, seen, now_ms)
    if answer is not None:
        return answer
    key = _key(plan, known, seen, late)
    flight = release.flights.get(key)
    if flight is None:
        flight = asyncio.ensure_future(_make(decider, release, plan, known, late=late, key=key))
        release.flights[key] = flight
        flight.add_done_callback(lambda _: release.flights.pop(key, None))
    _miss.inc()
    made = await asyncio.shield(flight)
    return with_unknown(made, plan) if plan.unknown else made


def context_of(decider: Decider, seen: Seen, locale: str, now_ms: int) -> dict[str, Any]:
    """The fields of a request that conditions ask for."""
    local = datetime.fromtimestamp(now_ms / 1000, decider.zone)
    return dimensions.context(seen, locale=locale, hour=local.hour, weekday=local.isoweekday())


def late_bits(
    decider: Decider, release: Release, refs: Iterable[SegmentRef], seen: Seen, locale: str, now_ms: int
) -> Late:
    """Which of the request-dependent segments hold for a request."""
    context = context_of(decider, seen, locale, now_ms)
    return membership.late_bits(release.definitions, refs, seen.atoms, context, now_ms)


async def _make(decider: Decider, release: Release, plan: Plan, who: Known, *, late: Late, key: Any) -> Answer:
    """Ask both services under one deadline; what does not come in time is the last good answer, or the default."""
    now_ms, killed = decider.clock.now_ms(), decider.knowledge.kills
    loaded = decider.knowledge.is_any
    refs = (*plan.durable, *plan.late)
    standing = membership.standing(refs, plan.undefined, who.seen.atoms, late, epoch=who.epoch)
    common = {"website": plan.website, "at_ms": now_ms, **who.asked(standing)}
    asked = {**common, "slots": list(plan.slots), "locale": plan.locale, "killed": kills.keys(killed, "block")}
    priced = {**common, **who.asked(membership.for_prices(standing, refs)), "killed": kills.keys(killed, "rule")}
    degraded = ["audience"] if who.epoch < plan.epoch or (release.withheld and plan.undefined) else []
    async with asyncio.TaskGroup() as group:
        content = group.create_task(_part(decider, release, CONTENT, asked)) if plan.slots else None
        promo = group.create_task(_part(decider, release, PROMO, priced))
    parts = (Part(NOTHING) if content is None else content.result(), promo.result())
    blocks, messages = kills.of_content(parts[0].said, killed), kills.of_promotions(parts[1].said, killed)
    if not loaded:  # which slots there are, or what is killed, is not known before
        blocks = messages = NOTHING
    if parts[0].degraded or not loaded:
        degraded.append("content")
    if parts[1].degraded or not loaded:
        degraded.append("promotions")
    for part in degraded:
        DEGRADED.labels(part=part).inc()
    tags = [*blocks["tags"], *messages["tags"]]
    merged = merge(plan, blocks, messages, known=release.content["slots"], degraded=degraded)
    base = release.plan(
        plan.website, plan.slots, plan.locale
    )  # without what was asked for and is nowhere: it is everybody's
    answer = finish(base, merged, tags, now_ms=now_ms, most_s=decider.share_s)
    if any(part.gone for part in parts):
        return replace(answer, stopgap=True)
    release.answers.put(key, answer, answer.size)
    return answer


async def _part(decider: Decider, release: Release, service: str, asked: Mapping[str, Any]) -> Part:
    """What a service says of the release, else what it said last of the same version, else nothing.

    A replica that is behind is asked once more. What is of another version counts for nothing: what is known says neither whom
    it is for, nor when it changes.
    """
    kind, ask = (OF_CONTENT, decider.content.ask) if service == CONTENT else (OF_PROMO, decider.promo.ask)
    if kind in release.stale:
        return Part(NOTHING, degraded=True)
    version, asked_s = release.versions[kind], asyncio.get_running_loop().time()
    kept = (service, version, encode({**asked, "at_ms": 0}))
    question = {**asked, "version": version or None}
    try:
        async with asyncio.timeout(decider.budget_s):
            found = await ask(question)
            if found["version"] != version:  # another replica may have it
                await asyncio.sleep(AGAIN_S)
                found = await ask(question)
        if found["version"] > version > 0:
            decider.knowledge.hear(kind, found["version"], asked_s)
            return Part(NOTHING, degraded=True, gone=True)
        if found["version"] != version or "refused" in found:
            raise ValueError
    except (httpx.HTTPError, TimeoutError, ValueError):
        last = decider.last_good.get(kept)
        if last is not None and not _over(said := decode(last), asked["at_ms"]):
            return Part(said, degraded=True)
        return Part(NOTHING, degraded=True)
    said = encode(found)
    decider.last_good.put(kept, said, len(said) + 1000)
    return Part(found)


def _over(said: Mapping[str, Any], now_ms: int) -> bool:
    """Whether what a service said last has ended since."""
    until = said.get("next_change_at")
    return until is not None and until <= now_ms
