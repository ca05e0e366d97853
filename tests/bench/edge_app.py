"""Stands for the gateway in the benches of the edge: what pages depend on is told beforehand, and all may be kept. It counts."""

from __future__ import annotations

import json
import os
import re
from typing import Any

MASKS = [mask.encode() for mask in json.loads(os.environ["MASKS"])]  # by page
LIFE_S = int(os.environ.get("LIFE_S", "3600"))
PAGE, BODY = re.compile(rb"slots=p([0-9]+)"), b"x" * 600
HEADERS = [
    (b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY)), (b"etag", b'"0123456789abcdef01234567"'),
    (b"cache-control", b"public, max-age=0, s-maxage=%d, stale-while-revalidate=30, stale-if-error=300" % LIFE_S),
    (b"xkey", b"all main:slot:x"),
]  # fmt: skip
fetched = [0]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer; another path than a decision's says how often."""
    page = PAGE.search(scope["query_string"])
    if page is None:
        body = b"%d" % fetched[0]
        headers = [(b"content-length", b"%d" % len(body))]
    else:
        fetched[0] += 1
        body, headers = BODY, [*HEADERS, (b"x-aud-mask", MASKS[int(page[1])]), (b"x-aud-since", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
