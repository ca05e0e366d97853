"""Called for what a service answers by itself: hands a request on as it came, with for whom it is asked."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import unquote

import httpx
from chassis.auth import Actor
from chassis.http import read_json, require_json
from chassis.problems import Problem
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from gateway.adapters.upstreams import unavailable
from gateway.deps import Deps

HEADERS = (b"content-type", b"if-match", b"idempotency-key")  # handed on as the bytes they are
PASSED_ON = ("etag", "content-type")
PATIENCE_S = 30.0  # a save waits for the batches in work, and runs what it saves
LONG = re.compile(r"/v1/segments/(preview|[^/]+/members(\.csv)?)")  # each looks at very many people
WHOLE = "text/csv"  # a list of whatever length


async def forward(deps: Deps, request: Request, service: str, path: str, *, actor: Actor) -> Response:
    """What a service says to a path of its own. Raises Problem 400, 404, 415, 422 for a body it would not read, 503."""
    body = await request.body()
    if body:
        require_json(request)
        read_json(body)
    headers = {n.decode(): value for n, value in request.headers.raw if n in HEADERS}
    more: dict[str, Any] = {"headers": headers, "content": body, "timeout": PATIENCE_S, "actor": actor}
    try:
        url = str(httpx.URL(path, query=request.scope["query_string"]))
        if LONG.fullmatch(unquote(path)):
            return await _at_length(deps, service, request.method, url, **more)
        return answered(await deps.merchants.send(service, request.method, url, **more))
    except httpx.InvalidURL:  # longer than any of theirs, once it is encoded
        raise Problem("not-found", 404, "Not found") from None
    except httpx.HTTPError:
        raise unavailable() from None


async def _at_length(deps: Deps, service: str, method: str, url: str, *, actor: Actor, **more: Any) -> Response:
    """In a place for what takes long, until the last byte is sent or the client is gone. Raises Problem 503, httpx.HTTPError."""
    async with AsyncExitStack() as held:
        held.enter_context(deps.places.one(actor.subject))
        answer = await held.enter_async_context(deps.merchants.opened(service, method, url, actor=actor, **more))
        if answer.is_success and answer.headers.get("content-type", "").startswith(WHOLE):
            return Passing(answer, held.pop_all())
        await answer.aread()
        return answered(answer)


class Passing(StreamingResponse):
    """What a service says as it comes, never whole in memory; what is `held` for it is given back at its end, however it ends."""

    def __init__(self, answer: httpx.Response, held: AsyncExitStack) -> None:
        super().__init__(answer.aiter_bytes(), answer.status_code, headers=_kept(answer))
        self._held = held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the class."""
        async with self._held:
            await super().__call__(scope, receive, send)


def answered(answer: httpx.Response) -> Response:
    """What a service said, for the one who asked alone."""
    return Response(answer.content, answer.status_code, headers=_kept(answer))


def _kept(answer: httpx.Response) -> dict[str, str]:
    kept = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
    return {**kept, "cache-control": "private, no-store"}
