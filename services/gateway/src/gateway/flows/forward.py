"""Called for what a service answers by itself: hands a request on as it came, with for whom it is asked."""

from __future__ import annotations

import httpx
from chassis.auth import Actor
from chassis.http import read_json, require_json
from chassis.problems import Problem
from fastapi import Request, Response

from gateway.adapters.upstreams import unavailable
from gateway.deps import Deps

HEADERS = (b"content-type", b"if-match", b"idempotency-key")  # handed on as the bytes they are
PASSED_ON = ("etag", "content-type")
PATIENCE_S = 30.0  # a save waits for the batches in work, and runs what it saves


async def forward(deps: Deps, request: Request, service: str, path: str, *, actor: Actor) -> Response:
    """What a service says to a path of its own. Raises Problem 400, 404, 415, 422 for a body it would not read, 503."""
    body = await request.body()
    if body:
        require_json(request)
        read_json(body)
    headers = {n.decode(): value for n, value in request.headers.raw if n in HEADERS}
    more = {"headers": headers, "content": body, "timeout": PATIENCE_S}
    try:
        url = str(httpx.URL(path, query=request.scope["query_string"]))
        answer = await deps.merchants.send(service, request.method, url, actor=actor, **more)
    except httpx.InvalidURL:  # longer than any of theirs, once it is encoded
        raise Problem("not-found", 404, "Not found") from None
    except httpx.HTTPError:
        raise unavailable() from None
    return answered(answer)


def answered(answer: httpx.Response) -> Response:
    """What a service said, for the one who asked alone."""
    kept = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
    return Response(answer.content, answer.status_code, headers={**kept, "cache-control": "private, no-store"})
