"""Called per storefront GET. Reads one document, maps it to the segments that matter, answers from finished bodies.

The hot path: no parsing of what was parsed before, no HTTP call, no framework. A miss asks content-svc and promo-svc
once for everybody who waits for the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import msgspec
from chassis.clock import Clock
from chassis.pipe import Pipe, PipeUnavailable

from gateway.domain import dimensions, targeting
from gateway.domain.answer import Answer, decode, encode, finish, merge, with_unknown
from gateway.domain.dimensions import GUEST, Seen
from gateway.domain.targeting import Person, Plan, SegmentRef
from gateway.kept import Kept
from gateway.telemetry import DECISIONS, DEGRADED
from gateway.upstreams import CONTENT, PROMO, Coalescer
from gateway.watch import Knowledge

MOST_LAST_GOOD = 32 << 20  # bytes
AGAIN_S = 0.05  # until a replica that is a moment behind is asked once more
NOTHING: Mapping[str, Any] = {"slots": {}, "messages": [], "tags": []}
_miss = DECISIONS.labels(source="services")


@dataclass(frozen=True, slots=True)
class Decider:
    """What a decision needs."""

    knowledge: Knowledge
    pipe: Pipe
    content: Coalescer
    promo: Coalescer
    clock: Clock
    zone: ZoneInfo
    budget_s: float
    share_s: int
    flights: dict[Any, asyncio.Task[Answer]]
    last_good: Kept[Any, bytes]


class Known(NamedTuple):
    """What the document of an identity says: bits, group, whether it is a customer's, and when this changes by itself.

    `degraded`: Redis could not be asked, or the document not be read. Without `consent` they count as a stranger, whatever is
    known.
    """

    atoms: int
    group: str = GUEST
    logged_in: bool = False
    degraded: bool = False
    until: int | None = None
    consent: bool = True

    def seen(self, facts: Mapping[str, str], page: Mapping[str, str]) -> Seen:
        """With what is known of a request."""
        return Seen(self.atoms, self.group, self.logged_in, facts, page)


class Part(NamedTuple):
    """What a service contributes: whether it is less than it should be, and whether others may have it too."""

    said: Mapping[str, Any]
    degraded: bool = False
    shared: bool = True


async def look_up(decider: Decider, identity: bytes | None, now_ms: int) -> Known:
    """The document of an identity; a stranger, and nobody at all, is an empty profile, as of a visitor or of a customer."""
    stranger = Known(decider.knowledge.definitions.empty)
    if identity is None:
        return stranger
    logged_in = identity.startswith(b"c:")
    try:
        stored = await decider.pipe.get(b"aud:" + identity)
        person: Person | None = None if stored is None else targeting.decode(memoryview(stored)[8:])
    except (PipeUnavailable, msgspec.DecodeError):
        return stranger._replace(logged_in=logged_in, degraded=True)
    if person is None and logged_in:
        return Known(decider.knowledge.definitions.empty_customer, logged_in=True)
    if person is None or person.consent & 1:
        return stranger._replace(logged_in=logged_in, consent=person is None)
    atoms, until = targeting.bits_at(person, now_ms), targeting.next_flip(person, now_ms)
    return Known(atoms, person.group or GUEST, logged_in or person.customer, until=until)


async def decide(decider: Decider, plan: Plan, known: Known, seen: Seen, now_ms: int) -> Answer:
    """The answer for one request. Always one, whatever is down."""
    late = late_bits(decider, plan.late, seen, plan.locale, now_ms) if plan.late else 0
    groups = tuple([d.read(seen) for d in plan.groups])
    key = (plan.release, plan.website, plan.slots, plan.locale, seen.atoms & plan.bits, late, groups, known.degraded)
    answer = decider.knowledge.answers.get(key)
    if answer is not None and answer.until > now_ms:
        decider.knowledge.hits += 1
        return with_unknown(answer, plan.unknown)
    flight = decider.flights.get(key)
    if flight is None:
        flight = asyncio.ensure_future(_make(decider, plan, known, late=late, key=key))
        decider.flights[key] = flight
        flight.add_done_callback(lambda _: decider.flights.pop(key, None))
    _miss.inc()
    return with_unknown(await asyncio.shield(flight), plan.unknown)


def context_of(decider: Decider, seen: Seen, locale: str, now_ms: int) -> dict[str, Any]:
    """The fields of a request that conditions ask for."""
    local = datetime.fromtimestamp(now_ms / 1000, decider.zone)
    return dimensions.context(seen, locale=locale, hour=local.hour, weekday=local.isoweekday())


def late_bits(decider: Decider, refs: Iterable[SegmentRef], seen: Seen, locale: str, now_ms: int) -> int:
    """Which of the request-dependent segments hold for a request, by segment id."""
    context = context_of(decider, seen, locale, now_ms)
    return targeting.late_bits(decider.knowledge.definitions, refs, seen.atoms, context, now_ms)


async def _make(decider: Decider, plan: Plan, who: Known, *, late: int, key: Any) -> Answer:
    """Ask both services under one deadline; what does not come in time is the last good answer, or the default."""
    now_ms, known = decider.clock.now_ms(), decider.knowledge
    segments = [r.key for r in targeting.members((*plan.durable, *plan.late), who.atoms, late)]
    common = {"website": plan.website, "segments": segments, "group": who.group, "at_ms": now_ms}
    asked = {**common, "slots": list(plan.slots), "locale": plan.locale}
    degraded = ["audience"] if who.degraded else []
    async with asyncio.TaskGroup() as group:
        content = group.create_task(_part(decider, CONTENT, known.content["version"], asked)) if plan.slots else None
        promo = group.create_task(_part(decider, PROMO, known.promo["version"], common))
    parts = (Part(NOTHING) if content is None else content.result(), promo.result())
    blocks, messages = parts[0].said, parts[1].said
    if parts[0].degraded or not decider.knowledge.loaded:  # which slots there are is not known before
        degraded.append("content")
        blocks = blocks if decider.knowledge.loaded else NOTHING
    if parts[1].degraded:
        degraded.append("promotions")
    for part in degraded:
        DEGRADED.labels(part=part).inc()
    tags = [*blocks["tags"], *messages["tags"]]
    merged = merge(plan, blocks, messages, degraded=degraded)
    # Not of a version that is not known, and not if anything was published meanwhile.
    shared = plan.release == decider.knowledge.release and all(part.shared for part in parts)
    answer = finish(plan, merged, tags, now_ms=now_ms, most_s=decider.share_s)
    if shared:
        decider.knowledge.answers.put(key, answer, answer.size)
        return answer
    return replace(answer, shared=answer.private)


async def _part(decider: Decider, service: str, known: int, asked: Mapping[str, Any]) -> Part:
    """What a service says now, else what it said last, else nothing. `known` is the version it is known to be at.

    A replica that is behind is asked once more. What is of another version all the same is for this request only: what
    is known now says neither whom else it is for, nor when it changes. What was said last counts for the same question at the
    same version: what was published since may be switched off, or for others now.
    """
    kept = (service, known, encode({**asked, "at_ms": 0}))
    ask = (decider.content if service == CONTENT else decider.promo).ask
    found = None
    try:
        async with asyncio.timeout(decider.budget_s):
            found = await ask(asked)
            if found["version"] < known:
                await asyncio.sleep(AGAIN_S)
                found = await ask(asked)
    except (httpx.HTTPError, TimeoutError, ValueError):
        last = decider.last_good.get(kept)
        if last is not None and not _over(said := decode(last), asked["at_ms"]):
            return Part(said, degraded=True)
        if found is None:
            return Part(NOTHING, degraded=True)
    if found["version"] > known:
        decider.knowledge.outdated.set()
    if "refused" in found:
        return Part(NOTHING, degraded=True)
    if found["version"] != known:
        return Part(found, shared=False)
    said = encode(found)
    decider.last_good.put(kept, said, len(said) + 1000)
    return Part(found)


def _over(said: Mapping[str, Any], now_ms: int) -> bool:
    """Whether what a service said last has ended since."""
    until = said.get("next_change_at")
    return until is not None and until <= now_ms


Send = Callable[[Mapping[str, Any]], Awaitable[None]]


async def respond(send: Send, answer: Answer, *, share: bool, etag: bytes) -> None:
    """Write an answer, or 304 when the caller has it."""
    headers = answer.shared if share else answer.private
    if etag and etag == answer.etag:
        kept = [h for h in headers if h[0] not in (b"content-length", b"content-type")]
        await send({"type": "http.response.start", "status": 304, "headers": kept})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
