"""Called for what a service answers by itself: hands a request on as it came, with for whom it is asked."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import unquote

import httpx
from chassis.auth import Actor
from chassis.http import json_of, require_json
from chassis.problems import Problem
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from gateway.adapters.upstreams import unavailable
from gateway.deps import Deps

HEADERS = (b"content-type", b"if-match", b"idempotency-key")  # handed on as the bytes they are
PASSED_ON = ("etag", "content-type")
PATIENCE_S = 30.0  # a save waits for the batches in work, and runs what it saves
ONE = re.compile(
    r"/v1/((segments|blocks|slots|cart-rules)/[^/]+(/explain)?|profiles/.+)"
)  # one document, or why of one person
PREVIEW = "/v1/segments/preview"  # looks at very many people
MOST_BYTES = 2 << 20  # of an answer in memory: a page of 1 MiB fits, as services write it


async def forward(deps: Deps, request: Request, service: str, path: str, *, actor: Actor) -> Response:
    """What a service says to a path of its own, of which at most MOST_BYTES are in memory.

    Raises Problem 400, 404, 413, 415, 422 for a body it would not read, 503.
    """
    body = await request.body()
    if body:
        require_json(request)
        await json_of(body, actor.subject)
    headers = {n.decode(): value for n, value in request.headers.raw if n in HEADERS}
    more: dict[str, Any] = {"headers": headers, "content": body, "timeout": PATIENCE_S, "actor": actor}
    try:
        url = str(httpx.URL(path, query=request.scope["query_string"]))
        async with AsyncExitStack() as held:
            long = _takes_long(request.method, unquote(path))
            if long:
                held.enter_context(deps.places.one(actor.subject))
            answer = await held.enter_async_context(deps.merchants.opened(service, request.method, url, **more))
            pieces = answer.aiter_bytes()
            begun, whole = (b"", False) if _is_list(answer) else await _begun(pieces)
            if whole:
                return Response(begun, answer.status_code, headers=_kept(answer))
            if not long:
                held.enter_context(deps.places.one(actor.subject))
            return Passing(answer, begun, pieces, held.pop_all())
    except httpx.InvalidURL:  # longer than any of theirs, once it is encoded
        raise Problem("not-found", 404, "Not found") from None
    except httpx.HTTPError:
        raise unavailable() from None


def _takes_long(method: str, path: str) -> bool:
    """Whether there are few places for it: for what lists, and for what looks at many people."""
    return path == PREVIEW if method != "GET" else ONE.fullmatch(path) is None


def _is_list(answer: httpx.Response) -> bool:
    """Whether it is one of whatever length, and is not waited for."""
    return answer.is_success and answer.headers.get("content-type", "").startswith("text/csv")


async def _begun(pieces: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """What an answer begins with, MOST_BYTES or a little more, and whether that is all of it."""
    begun = bytearray()
    async for piece in pieces:
        begun += piece
        if len(begun) > MOST_BYTES:
            return bytes(begun), False
    return bytes(begun), True


class Passing(StreamingResponse):
    """What a service says as it comes, never whole in memory; what is `held` for it is given back at its end, however it ends."""

    def __init__(
        self, answer: httpx.Response, begun: bytes, pieces: AsyncIterator[bytes], held: AsyncExitStack
    ) -> None:
        async def all_of_it() -> AsyncIterator[bytes]:
            if begun:
                yield begun
            async for piece in pieces:
                yield piece

        super().__init__(all_of_it(), answer.status_code, headers=_kept(answer))
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
