"""Called per storefront GET. Reads one document, maps it to the segments that matter, answers from finished bodies.

The hot path: no parsing of what was parsed before, no HTTP call, no framework. A miss asks content-svc and promo-svc
once for everybody who waits for the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import msgspec
from chassis.clock import Clock
from chassis.pipe import Pipe, PipeUnavailable

from gateway.domain import dimensions, targeting
from gateway.domain.answer import Answer, finish, merge
from gateway.domain.dimensions import GUEST, Seen
from gateway.domain.targeting import Person, Plan, SegmentRef
from gateway.telemetry import DECISIONS, DEGRADED
from gateway.upstreams import Coalescer
from gateway.watch import Knowledge

MOST_ANSWERS = 50_000
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
    last_good: dict[Any, Any]


class Known(NamedTuple):
    """What the document of an identity says: bits, group, whether it is a customer's, and when this changes by itself.

    `degraded`: Redis could not be asked, or the document not be read.
    """

    atoms: int
    group: str = GUEST
    logged_in: bool = False
    degraded: bool = False
    until: int | None = None

    def seen(self, facts: Mapping[str, str], page: Mapping[str, str]) -> Seen:
        """With what is known of a request."""
        return Seen(self.atoms, self.group, self.logged_in, facts, page)


async def look_up(decider: Decider, identity: bytes | None, now_ms: int) -> Known:
    """The document of an identity; a stranger, and nobody at all, is an empty profile."""
    stranger = Known(decider.knowledge.definitions.empty)
    if identity is None:
        return stranger
    logged_in = identity.startswith(b"c:")
    try:
        stored = await decider.pipe.get(b"aud:" + identity)
        person: Person | None = None if stored is None else targeting.decode(memoryview(stored)[8:])
    except (PipeUnavailable, msgspec.DecodeError):
        return stranger._replace(logged_in=logged_in, degraded=True)
    if person is None or person.consent & 1:
        return stranger._replace(logged_in=logged_in)
    atoms, until = targeting.bits_at(person, now_ms), targeting.next_flip(person, now_ms)
    return Known(atoms, person.group or GUEST, logged_in or person.customer, until=until)


async def decide(decider: Decider, plan: Plan, known: Known, seen: Seen, now_ms: int) -> Answer:
    """The answer for one request. Always one, whatever is down."""
    late = late_bits(decider, plan.late, seen, plan.locale, now_ms) if plan.late else 0
    groups = tuple([d.read(seen) for d in plan.groups])
    key = (plan.website, plan.slots, plan.locale, seen.atoms & plan.bits, late, groups, known.degraded)
    answer = decider.knowledge.answers.get(key)
    if answer is not None and answer.until > now_ms:
        decider.knowledge.hits += 1
        return answer
    flight = decider.flights.get(key)
    if flight is None:
        flight = asyncio.ensure_future(_make(decider, plan, known, late=late, key=key))
        decider.flights[key] = flight
        flight.add_done_callback(lambda _: decider.flights.pop(key, None))
    _miss.inc()
    return await asyncio.shield(flight)


def late_bits(decider: Decider, refs: Iterable[SegmentRef], seen: Seen, locale: str, now_ms: int) -> int:
    """Which of the request-dependent segments hold for a request, by segment id."""
    local = datetime.fromtimestamp(now_ms / 1000, decider.zone)
    context = dimensions.context(seen, locale=locale, hour=local.hour, weekday=local.isoweekday())
    return targeting.late_bits(decider.knowledge.definitions, refs, seen.atoms, context, now_ms)


async def _make(decider: Decider, plan: Plan, who: Known, *, late: int, key: Any) -> Answer:
    """Ask both services under one deadline; what does not come in time is the last good answer, or the default."""
    answers = decider.knowledge.answers
    now_ms = decider.clock.now_ms()
    segments = [r.key for r in targeting.members((*plan.durable, *plan.late), who.atoms, late)]
    common = {"website": plan.website, "segments": segments, "group": who.group, "at_ms": now_ms}
    asked = {**common, "slots": list(plan.slots), "locale": plan.locale}
    degraded = ["audience"] if who.degraded else []
    async with asyncio.TaskGroup() as group:
        content = group.create_task(_part(decider, decider.content, asked, key))
        promo = group.create_task(_part(decider, decider.promo, common, key))
    blocks, messages = content.result(), promo.result()
    if blocks is None:
        degraded.append("content")
        blocks = {"slots": {}, "tags": []}
    if messages is None:
        degraded.append("promotions")
        messages = {"messages": [], "tags": []}
    for part in degraded:
        DEGRADED.labels(part=part).inc()
    tags = [*blocks["tags"], *messages["tags"]]
    merged = merge(plan, blocks, messages, degraded=degraded)
    answer = finish(plan, merged, tags, now_ms=now_ms, most_s=decider.share_s)
    if answers is decider.knowledge.answers:  # nothing was published meanwhile
        if len(answers) >= MOST_ANSWERS:
            answers.clear()
        answers[key] = answer
    return answer


async def _part(decider: Decider, service: Coalescer, asked: Mapping[str, Any], key: Any) -> Any:
    try:
        async with asyncio.timeout(decider.budget_s):
            found = await service.ask(asked)
    except (httpx.HTTPError, TimeoutError, ValueError):
        return decider.last_good.get((service, key))
    if len(decider.last_good) < MOST_ANSWERS:
        decider.last_good[service, key] = found
    return found


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
