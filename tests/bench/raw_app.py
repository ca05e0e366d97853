"""The baseline of the decisions bench: an ASGI callable that answers ready bytes of the same size."""

from __future__ import annotations

import os
from typing import Any

BODY = b"x" * int(os.environ.get("RAW_BYTES", "400"))
HEADERS = [
    (b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY)), (b"etag", b'"0123456789abcdef01234567"'),
    (b"cache-control", b"public, max-age=0, s-maxage=60, stale-while-revalidate=30, stale-if-error=300"),
    (b"vary", b"Accept-Encoding, X-Api-Key, X-Ctx"), (b"xkey", b"all content promo slot:home.hero slot:home.grid"),
]  # fmt: skip


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
