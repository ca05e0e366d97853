"""Stands for the gateway in the bench of the edge: every page depends on three segments and may be kept."""

from __future__ import annotations

from typing import Any

MASK = b".s3.s9.s20."
BODY = b"x" * 600
HEADERS = [
    (b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY)), (b"etag", b'"0123456789abcdef01234567"'),
    (b"cache-control", b"public, max-age=0, s-maxage=3600, stale-while-revalidate=30, stale-if-error=300"),
    (b"x-aud-mask", MASK), (b"xkey", b"all main:slot:x"),
]  # fmt: skip


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
