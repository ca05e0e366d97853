"""A merged decision as bytes, with the headers that tell every cache what it depends on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from gateway.domain.reply import Headers, Reply
from gateway.domain.tags import of_answer
from gateway.domain.targeting import Plan

STALE_S, ERROR_S, DEGRADED_S = 30, 300, 5
QUARTER_MS, HOUR_MS = 900_000, 3_600_000
SHARE = b"public, max-age=0, s-maxage=%d, stale-while-revalidate=%d, stale-if-error=%d"
NOWHERE: dict[str, Any] = {"fallback": True, "blocks": []}
SLOT_KEY = re.compile(r"[a-z][a-z0-9.-]*")  # anything else has no tag, and no place in a header
encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished body. `until` (epoch ms) is when it must be made anew. A `stopgap` stands for what could not be had.

    `shared` is for an edge that proved that it keys by the mask, `private` for anybody else.
    """

    body: bytes
    etag: bytes
    shared: Reply
    private: Reply
    until: int
    stopgap: bool = False

    def reply(self, *, share: bool, known: bytes) -> Reply:
        """What goes out to one who may `share` it, or may not, and names as `known` what he has (If-None-Match)."""
        found = self.shared if share else self.private
        return found.unchanged() if known and is_known(self.etag, known) else found

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        return len(self.body) + 2 * len(self.shared.lines()) + 1000


def next_boundary(plan: Plan, now_ms: int) -> int | None:
    """When the answer may change by itself, in epoch ms. An hour begins with a quarter of one, in every time zone."""
    coming = [at for at in plan.boundaries if at > now_ms][:1]
    if plan.by_the_hour:
        coming.append((now_ms // QUARTER_MS + 1) * QUARTER_MS)
    return min(coming, default=None)


def share_seconds(coming: int | None, now_ms: int, *, most_s: int) -> tuple[int, int, int]:
    """(s-maxage, stale-while-revalidate, stale-if-error), none of which reaches past the next boundary."""
    left = most_s + STALE_S + ERROR_S if coming is None else max(0, (coming - now_ms) // 1000)
    fresh = min(most_s, left)
    return fresh, min(STALE_S, left - fresh), min(ERROR_S, left - fresh)


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
    """Bytes and headers of a merged decision."""
    body, etag = _written(merged)
    coming = next_boundary(plan, now_ms)
    fresh, stale, error = share_seconds(coming, now_ms, most_s=most_s)
    if "degraded" in merged:
        fresh, stale, error = min(fresh, DEGRADED_S), 0, 0
    always = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"etag", etag),
        (b"vary", b"accept-encoding"),
    ]
    shared: Headers = [
        *always,
        (b"cache-control", SHARE % (fresh, stale, error)),
        (b"x-aud-mask", plan.mask.encode()),
        (b"x-aud-since", b"%d" % plan.since),
        (b"xkey", of_answer(plan.website, [*tags, *plan.tags]).encode()),
    ]
    life = DEGRADED_S * 1000 if "degraded" in merged else HOUR_MS
    if coming is not None:  # made anew when caches are to be told of the boundary, then every second until it comes
        left, window = coming - now_ms, (most_s + STALE_S + ERROR_S) * 1000
        life = min(life, 1000, left) if left < window else min(life, left - window)
    private = [*always, (b"cache-control", b"private, no-store")]
    return Answer(body, etag, Reply(200, shared, body), Reply(200, private, body), now_ms + life)


def is_known(etag: bytes, named: bytes) -> bool:
    """Whether an If-None-Match names an answer: one, a list, weak or not (RFC 9110, 13.1.2)."""
    return named.strip() == b"*" or any(one.strip().removeprefix(b"W/") == etag for one in named.split(b","))


def with_unknown(answer: Answer, plan: Plan) -> Answer:
    """The same answer to a request that named slots that are nowhere, too. Made for that request alone.

    It has their tags: an edge forgets it when such a slot is published.
    """
    slots = plan.unknown
    if not slots:
        return answer
    merged = decode(answer.body)
    del merged["decision_id"]
    merged["slots"] = dict(sorted({**merged["slots"], **dict.fromkeys(slots, NOWHERE)}.items()))
    body, etag = _written(merged)
    tags = "".join(f" {plan.website}:slot:{key}" for key in slots if SLOT_KEY.fullmatch(key)).encode()
    changed = {b"content-length": b"%d" % len(body), b"etag": etag}
    shared = [(n, value + tags if n == b"xkey" else changed.get(n, value)) for n, value in answer.shared.headers]
    private = [(n, changed.get(n, value)) for n, value in answer.private.headers]
    return replace(answer, body=body, etag=etag, shared=Reply(200, shared, body), private=Reply(200, private, body))


def _written(merged: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """(body, etag) of a merged decision."""
    digest = hashlib.blake2b(encode(merged), digest_size=12).hexdigest()
    return encode({**merged, "decision_id": digest}), b'"%b"' % digest.encode()
