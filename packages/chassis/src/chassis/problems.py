"""Errors a caller can act on: RFC 9457 problem+json with a stable slug and pointers, and nothing internal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from chassis.telemetry import get_logger

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 50
SLUGS = {404: "not-found", 405: "method-not-allowed", 401: "unauthenticated", 403: "forbidden"}
Passing = tuple[Sequence[type[Exception]], Callable[[BaseException], bool]]
log = get_logger("http")


class Problem(Exception):
    """Raised anywhere below a route. `errors` are {pointer, detail}; `pointers` is short for errors without detail."""

    def __init__(
        self,
        slug: str,
        status: int,
        title: str,
        *,
        detail: str = "",
        errors: Sequence[Mapping[str, str]] = (),
        pointers: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(title)
        self.slug, self.status, self.title, self.detail = slug, status, title, detail
        self.errors = [dict(e) for e in errors] or [{"pointer": p, "detail": title} for p in pointers]
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The problem as JSON-able data."""
        body: dict[str, Any] = {"type": f"urn:footfall:problem:{self.slug}", "title": self.title, "status": self.status}
        if self.detail:
            body["detail"] = self.detail
        if self.errors:
            body["errors"] = self.errors
        return body

    def response(self) -> JSONResponse:
        """The problem as an answer that no cache keeps."""
        headers = {"cache-control": "no-store", **self.headers}
        return JSONResponse(self.body(), status_code=self.status, media_type=MEDIA_TYPE, headers=headers)


def not_json() -> Problem:
    """What a body that is not JSON is answered."""
    return Problem("invalid-request", 400, "The body is not JSON")


def pointer(steps: Iterable[Any]) -> str:
    """A JSON pointer of names and indices."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def faults(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """{pointer, detail} of what pydantic found wrong, of very many the first ones."""
    return [{"pointer": pointer(e["loc"]), "detail": str(e["msg"])[:300]} for e in islice(found, MOST_ERRORS)]


async def _problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return error.response()


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(e["type"] == "json_invalid" for e in found):
        return not_json().response()
    return Problem("invalid-request", 422, "The request is not valid", errors=faults(map(_part, found))).response()


def _part(fault: Mapping[str, Any]) -> dict[str, Any]:
    """A fault with its place in its part of the request. A header has none that a pointer could name: the words do."""
    part, *steps = fault["loc"]
    if part == "header":
        return {"loc": (), "msg": f"header {steps[0]}: {fault['msg']}"}
    return {"loc": steps, "msg": fault["msg"]}


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    slug = SLUGS.get(error.status_code, "invalid-request")
    return Problem(slug, error.status_code, slug.replace("-", " ").capitalize(), headers=error.headers).response()


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request_failed", path=request.url.path, error=type(error).__name__, detail=str(error)[:500])
    return Problem("internal", 500, "Something went wrong on our side").response()


def _perhaps(passes: Callable[[BaseException], bool]) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def handle(request: Request, error: Exception) -> JSONResponse:
        if not passes(error):
            raise error
        log.warning("request_given_up", path=request.url.path, error=type(error).__name__)
        return Problem("busy", 503, "This cannot be done now; try again", headers={"retry-after": "2"}).response()

    return handle


def install(app: FastAPI, passing: Passing = ((), bool)) -> None:
    """Make every error of an application a problem. `passing`: kinds of errors, and which of them are worth another try."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    for kind in passing[0]:
        app.add_exception_handler(kind, _perhaps(passing[1]))
