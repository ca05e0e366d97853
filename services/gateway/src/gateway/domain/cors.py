"""Which other origins may call from a browser: those of the key. A shared answer names them all, and the edge says which."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from gateway.domain.reply import Headers, Reply

METHODS = b"GET, HEAD, POST, PUT, DELETE"
ASKED = b"authorization, content-type, idempotency-key, if-match, if-none-match, x-api-key"
EXPOSED = b"etag, retry-after, x-aud, x-aud-until"
PREFLIGHT_S = 600


def of(origins: Collection[str], origin: bytes | None) -> Headers:
    """What a page of an origin is told when it may read an answer, else nothing. What is said depends on the origin, always."""
    if not origins:
        return []
    vary = [(b"vary", b"origin")]
    if origin is None or origin.decode("latin-1") not in origins:
        return vary
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", EXPOSED),
        *vary,
    ]


def shared(reply: Reply, origins: Collection[str]) -> Reply:
    """An answer that an edge keeps: it says to each origin what that has to know."""
    return reply.marked([(b"x-origins", ",".join(("", *sorted(origins), "")).encode())]) if origins else reply


def by_url(reply: Reply, origins: Collection[str]) -> Reply:
    """An answer that a cache gives to every origin alike: pages of another one may read it when the key has one alone."""
    only = next(iter(origins)).encode() if len(origins) == 1 else None
    return reply.marked(of(origins, only))


def preflight(everybodys: Iterable[str], origin: bytes) -> Headers | None:
    """What a browser is told that asks whether it may, before it says its key; None: it may not."""
    found = of([o for o in everybodys if o == origin.decode("latin-1")], origin)
    if not found:
        return None
    return [
        *found,
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", ASKED),
        (b"access-control-max-age", b"%d" % PREFLIGHT_S),
        (b"cache-control", b"no-store"),
    ]
