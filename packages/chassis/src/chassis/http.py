"""What every HTTP application has: problems, health, limits on what comes in, and the check of service tokens."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline

from chassis.auth import SERVER, Actor, Refused, ServiceTokens
from chassis.beside import Beside
from chassis.health import Health
from chassis.problems import Passing, Problem, install, not_json, pointer
from chassis.telemetry import HTTP_SECONDS

IfMatch = Annotated[str | None, Header(alias="if-match")]
Ping = Callable[[], Awaitable[Any]]
PING_S, OK, MOST_DEPTH, MOST_PARTS = 1.0, "ok", 64, 100_000
FEW_PARTS = 1000  # are read in less time than it takes to have that done elsewhere
_AS_BRACKETS, _OTHERS = bytes.maketrans(b"{}", b"[]"), bytes(set(range(256)) - set(b"[]{}"))
_reading = Beside(1, waiting=32, patience_s=5.0)
JSON_TYPE = re.compile(r"application/([a-z0-9.-]+\+)?json *(;.*)?", re.IGNORECASE)


def service_app(
    title: str, *, pings: Mapping[str, Ping], health: Health, public: bool = False, passing: Passing = ((), bool)
) -> FastAPI:
    """An application with problems, /healthz (the process lives) and /readyz (what it needs answers, and nothing is wrong).

    /readyz names every part: `ok`, or the cause. As in Kubernetes' own, `?exclude=NAME` lets parts whose name begins with
    that word not count: who routes requests asks less than who watches. A `public` one keeps the causes to itself,
    and has a page about its routes, /docs, which takes nothing from elsewhere.
    `passing`: see `problems.install`.
    """
    make = partial(FastAPIOffline, "/docs", None) if public else partial(FastAPI, docs_url=None, redoc_url=None)
    app = make(title=title, version="1", redirect_slashes=False)
    install(app, passing)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz(exclude: Annotated[list[str], Query(max_length=20, default_factory=list)]) -> JSONResponse:
        said = await asyncio.gather(*map(_alive, pings.values()))  # at once: who asks does not wait for long
        parts = dict(zip(pings, said, strict=True)) | health.troubles()
        if public:
            parts = {part: state if state == OK else "trouble" for part, state in parts.items()}
        ready = all(state == OK for part, state in parts.items() if part.split()[0] not in exclude)
        return JSONResponse(parts, status_code=200 if ready else 503, headers={"cache-control": "no-store"})

    return app


async def _alive(ping: Ping) -> str:
    try:
        async with asyncio.timeout(PING_S):
            await ping()
    except Exception as error:
        return f"does not answer: {type(error).__name__}"
    return OK


def require_service(tokens: ServiceTokens, audience: str) -> Any:
    """A dependency that lets only other services in; anybody else learns nothing. See `may` for whom they ask."""

    def check(request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise Refused("scheme")
            request.state.actor = tokens.verify(token, audience)[1]
        except Refused:
            raise Problem("unauthenticated", 401, "Unauthenticated") from None

    return Depends(check)


def may(role: str) -> Any:
    """A dependency of routes for those who have a role; it gives who that is. Behind `require_service`. Raises Problem 403."""

    def check(request: Request) -> Actor:
        actor: Actor | None = request.state.actor
        if actor is None or not actor.may(role):
            raise Problem("forbidden", 403, "Forbidden")
        return actor

    return Depends(check)


Viewer = Annotated[Actor, may("viewer")]
Marketer = Annotated[Actor, may("marketer")]
Server = Annotated[Actor, may(SERVER)]
VIEWER = may("viewer")


async def json_of(body: bytes, sender: str = "", *, nul: bool = False) -> Any:
    """What `read_json` makes of a body; what has many parts is read beside the loop, of one sender one body after the other.

    Raises what that raises, and Problem 503 busy when too many of his wait.
    """
    work = partial(read_json, body, nul=nul)
    return work() if _parts(body) <= FEW_PARTS else await _reading.run(sender, work)


def read_json(body: bytes, *, nul: bool = False) -> Any:
    """A body as JSON: Unicode, finite numbers. Raises Problem 400 for anything else.

    Problem 413 for what may have more than MOST_PARTS values, for others wait while it is read; 422 with a pointer for what goes
    deeper than MOST_DEPTH, and for a NUL character, which PostgreSQL cannot store, unless `nul` allows it.
    """
    if _parts(body) > MOST_PARTS:
        raise Problem("body-too-large", 413, "The body has too many parts", detail=f"At most {MOST_PARTS:,}")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise not_json() from None
    # To look at each value takes long, and finds nothing else.
    suspect = _is_deep(body) or (not nul and b"\\u0000" in body)
    fault = _fault(value, (), nul, MOST_DEPTH) if suspect else None
    if fault is not None:
        raise Problem("invalid-request", 422, "The request is not valid", errors=[fault])
    return value


def require_json(request: Request) -> None:
    """A dependency of routes that read JSON. Raises Problem 415 for a body that says to be something else."""
    said = request.headers.get("content-type")
    if said is not None and not JSON_TYPE.fullmatch(said):
        raise Problem("unsupported-media-type", 415, "The body must be JSON", headers={"accept": "application/json"})


async def storable(request: Request) -> None:
    """A dependency of routes that store what they are given. Raises Problem 400, 422 as `read_json` does."""
    body = await request.body()
    if body:
        await json_of(body)


async def readable(request: Request) -> None:
    """A dependency of routes that hand on what they are given. Raises Problem 400, 422 as `read_json` does, but for NUL."""
    body = await request.body()
    if body:
        await json_of(body, nul=True)


STORABLE, READABLE = Depends(storable), Depends(readable)


def _parts(body: bytes) -> int:
    """How many values a body has, or fewer."""
    return sum(map(body.count, (b"[", b"{", b",")))


def _is_deep(body: bytes) -> bool:
    """Whether JSON goes deeper than MOST_DEPTH: by its brackets alone, of which the innermost ones go, level by level."""
    outside = body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2]  # of texts, in which a bracket is none
    brackets = b"".join(outside).translate(_AS_BRACKETS, _OTHERS)
    for _ in range(MOST_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _fault(value: Any, at: tuple[Any, ...], nul: bool, levels: int) -> dict[str, str] | None:
    if isinstance(value, str):
        return {"pointer": pointer(at), "detail": "has a NUL character"} if "\0" in value and not nul else None
    if not isinstance(value, dict | list):
        return None
    if not levels:
        return {"pointer": pointer(at), "detail": f"goes deeper than {MOST_DEPTH} levels"}
    for step, item in value.items() if isinstance(value, dict) else enumerate(value):
        found = (_fault(step, at, nul, 1) if isinstance(step, str) else None) or _fault(
            item, (*at, step), nul, levels - 1
        )
        if found is not None:
            return found
    return None


class Limits:
    """Pure ASGI guard: refuses large, slow or broken-off bodies and too many headers before the application reads them.

    What is wrong with a body is raised where the application reads it, as a Problem: nothing of ours has failed.
    """

    def __init__(
        self, app: Any, *, service: str, max_body: int = 1_048_576, max_headers: int = 100, body_timeout_s: float = 10.0
    ) -> None:
        self._app, self._service = app, service
        self._max_body, self._max_headers, self._timeout_s = max_body, max_headers, body_timeout_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on within the limits; answer 431, 413 or 408 outside them; who went away counts as 499."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), [0]
        problem = self._refusal(scope)
        if problem is not None:
            await problem.response()(scope, receive, send)
            return

        broken: list[Problem] = []

        async def watched(message: Any) -> None:
            if broken and not status[0]:
                return  # the framework's own words for a body that did not arrive; ours follow
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                if all(
                    name != b"cache-control" for name, _ in message["headers"]
                ):  # what nobody thought of is nobody's to keep
                    message = {**message, "headers": [*message["headers"], (b"cache-control", b"no-store")]}
            await send(message)

        try:
            await self._app(scope, self._limited(receive, broken), watched)
        except Problem:
            if status[0] or not broken:
                raise
        if broken and not status[0]:
            status[0] = broken[0].status
            await broken[0].response()(scope, receive, send)
        route = getattr(scope.get("route"), "path", "unmatched")
        labels = (self._service, scope["method"], route, str(status[0]))
        HTTP_SECONDS.labels(*labels).observe(time.perf_counter() - started)

    def _refusal(self, scope: Any) -> Problem | None:
        if "\0" in scope["path"]:
            return Problem("not-found", 404, "Not found")
        if b"%00" in scope["query_string"]:
            return Problem("invalid-request", 400, "The query has a NUL character")
        if len(scope["headers"]) > self._max_headers:
            return Problem("too-many-headers", 431, "Too many headers")
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > self._max_body):
                return _large()
        return None

    def _limited(self, receive: Any, broken: list[Problem]) -> Any:
        seen, done = 0, False

        async def limited() -> Any:
            nonlocal seen, done
            if done:
                return await receive()
            try:
                async with asyncio.timeout(self._timeout_s):
                    message = await receive()
            except TimeoutError:
                broken.append(_slow())
                raise broken[0] from None
            except Problem as problem:  # of who stands in front of this, and takes no more of it
                broken.append(problem)
                raise
            if message["type"] == "http.disconnect":
                broken.append(_gone())
                raise broken[0]
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                done = not message.get("more_body", False)
                if seen > self._max_body:
                    broken.append(_large())
                    raise broken[0]
            return message

        return limited


def _large() -> Problem:
    return Problem("body-too-large", 413, "The body is too large")


def _slow() -> Problem:
    return Problem("body-too-slow", 408, "The body came too slowly", headers={"connection": "close"})


def _gone() -> Problem:
    return Problem("client-gone", 499, "The client went away before its body was here")
