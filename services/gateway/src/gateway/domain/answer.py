"""A merged decision as bytes, with the headers that tell every cache what it depends on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from gateway.domain.reply import Headers, Reply
from gateway.domain.tags import of_answer
from gateway.domain.targeting import Plan

STALE_S, ERROR_S, DEGRADED_S = 30, 300, 5
QUARTER_MS, HOUR_MS = 900_000, 3_600_000
SHARE = b"public, max-age=0, s-maxage=%d, stale-while-revalidate=%d, stale-if-error=%d"
NOWHERE: dict[str, Any] = {"fallback": True, "blocks": []}
SMALL_PARTS = 1300  # of an answer and its key in memory
JSON, VARY = (b"content-type", b"application/json"), (b"vary", b"accept-encoding")
PRIVATE = (b"cache-control", b"private, no-store")
SLOT_KEY = re.compile(r"[a-z][a-z0-9.-]*")  # anything else has no tag, and no place in a header
encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


class Life(NamedTuple):
    """For how many seconds caches may keep an answer: as it is, while it is fetched anew, and while that fails."""

    fresh: int
    stale: int = 0
    error: int = 0


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Answer:
    """A finished body, by a plan. `tags`: what it is made of. `until` (epoch ms) is when it must be made anew.

    `private` is for anybody. What is for caches is made when one asks: each asks once, people again and again. A `stopgap`
    stands for what could not be had.
    """

    plan: Plan
    body: bytes
    etag: bytes
    tags: str
    life: Life
    until: int
    private: Reply
    stopgap: bool = False

    def shared(self) -> Reply:
        """For an edge that proved that it keys by the mask."""
        headers: Headers = [
            *_always(self.body, self.etag),
            (b"cache-control", SHARE % self.life),
            (b"x-aud-mask", self.plan.mask.encode()),
            (b"x-aud-since", b"%d" % self.plan.since),
            (b"xkey", of_answer(self.plan.website, [*self.tags.split(), *self.plan.tags]).encode()),
        ]
        return Reply(200, headers, self.body)

    def by_url(self, most_s: float) -> Reply:
        """For a cache that keys by the URL, which may be what it says for so long, and that nobody can have forget anything."""
        cached = (b"cache-control", b"public, max-age=0, s-maxage=%d" % min(self.life.fresh, most_s))
        return Reply(200, [*_always(self.body, self.etag), cached], self.body)

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        return len(self.body) + len(self.tags) + SMALL_PARTS


def _always(body: bytes, etag: bytes) -> Headers:
    return [JSON, (b"content-length", b"%d" % len(body)), (b"etag", etag), VARY]


def next_boundary(plan: Plan, now_ms: int) -> int | None:
    """When the answer may change by itself, in epoch ms. An hour begins with a quarter of one, in every time zone."""
    coming = [at for at in plan.boundaries if at > now_ms][:1]
    if plan.by_the_hour:
        coming.append((now_ms // QUARTER_MS + 1) * QUARTER_MS)
    return min(coming, default=None)


def life_of(coming: int | None, now_ms: int, *, most_s: int) -> Life:
    """None of it reaches past the next boundary."""
    left = most_s + STALE_S + ERROR_S if coming is None else max(0, (coming - now_ms) // 1000)
    fresh = min(most_s, left)
    return Life(fresh, min(STALE_S, left - fresh), min(ERROR_S, left - fresh))


def merge(
    plan: Plan,
    content: Mapping[str, Any],
    promo: Mapping[str, Any],
    *,
    known: Mapping[str, Any],
    degraded: Sequence[str],
) -> dict[str, Any]:
    """The public answer: per slot the blocks, the promotion messages, and what is degraded, if anything.

    `known` are the slots as content-svc described them: what it does not say now shows its default.
    """
    slots = {key: content["slots"].get(key) or default(key, known.get(key), plan) for key in plan.slots}
    body = {"slots": slots, "messages": promo["messages"]}
    return {**body, "degraded": list(degraded)} if degraded else body


def default(key: str, slot: Mapping[str, Any] | None, plan: Plan) -> dict[str, Any]:
    """What a slot shows of which nothing else is known, as content-svc would say it."""
    if slot is None or (slot["websites"] and plan.website not in slot["websites"]):
        return NOWHERE
    names = (plan.locale, plan.locale.split("-")[0], "*")
    content = next((slot["default"][name] for name in names if name in slot["default"]), None)
    return {"fallback": True, "blocks": [{"key": f"{key}:default", "content": content}]}


def finish(plan: Plan, merged: Mapping[str, Any], tags: Sequence[str], *, now_ms: int, most_s: int) -> Answer:
    """Bytes and life of a merged decision."""
    coming = next_boundary(plan, now_ms)
    life, here = life_of(coming, now_ms, most_s=most_s), HOUR_MS
    if "degraded" in merged:
        life, here = Life(min(life.fresh, DEGRADED_S)), DEGRADED_S * 1000
    if coming is not None:  # made anew when caches are to be told of the boundary, then every second until it comes
        left, window = coming - now_ms, (most_s + STALE_S + ERROR_S) * 1000
        here = min(here, 1000, left) if left < window else min(here, left - window)
    return _finished(plan, merged, " ".join(tags), life, now_ms + here)


def _finished(plan: Plan, merged: Mapping[str, Any], tags: str, life: Life, until: int) -> Answer:
    digest = hashlib.blake2b(encode(merged), digest_size=12).hexdigest()
    body, etag = encode({**merged, "decision_id": digest}), b'"%b"' % digest.encode()
    return Answer(plan, body, etag, tags, life, until, Reply(200, [*_always(body, etag), PRIVATE], body))


def is_known(etag: bytes, named: bytes) -> bool:
    """Whether an If-None-Match names an answer: one, a list, weak or not (RFC 9110, 13.1.2)."""
    return named.strip() == b"*" or any(one.strip().removeprefix(b"W/") == etag for one in named.split(b","))


def with_unknown(answer: Answer, plan: Plan) -> Answer:
    """The same answer to a request that named slots that are nowhere, too. Made for that request alone.

    It has their tags: an edge forgets it when such a slot is published.
    """
    slots = plan.unknown
    merged = decode(answer.body)
    del merged["decision_id"]
    merged["slots"] = dict(sorted({**merged["slots"], **dict.fromkeys(slots, NOWHERE)}.items()))
    tags = " ".join([answer.tags, *(f"slot:{key}" for key in slots if SLOT_KEY.fullmatch(key))])
    return replace(_finished(plan, merged, tags, answer.life, answer.until), stopgap=answer.stopgap)
