"""python -m devstack.storefront: the example shop's server. It has the page, the logins, and the keys a browser never gets.

The gateway stands behind the same origin, so that its cookies are first-party: only the routes that the page needs are
passed on, and what a browser says of its login or its place is not. Decisions go through the edge when there is one.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jwt
from chassis.http import Limits, read_json
from chassis.problems import Problem
from chassis.service import Service, run
from chassis.settings import load
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from devstack.shop.people import PEOPLE, Person
from devstack.stack import customer_token

PAGES = Path(__file__).resolve().parents[4] / "web" / "storefront"
PREFIX = "STOREFRONT_"
VISITOR, CONTEXT, SESSION = "__Host-ff_vid", "__Host-ff_ctx", "shop_session"
DECISIONS, CONTEXTS, CART, EVENTS, EXPLAIN = "/v1/decisions", "/v1/context", "/v1/cart", "/v1/events", "/v1/explain"
# What a page may ask for: the method of a path, and the names its query may have.
ALLOWED = {DECISIONS: ("GET", ("slots", "locale")), CONTEXTS: ("GET", ()), CART: ("POST", ()), EVENTS: ("POST", ())}
ASKED = ("content-type", "if-none-match", "user-agent", "accept-language")
ANSWERED = ("content-type", "etag", "vary", "cache-control", "cache-status", "retry-after", "set-cookie")
MOST_BODY = 262_144
POLICY = "default-src 'self'; img-src 'self' https: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
JSON = "application/json"
NOBODY = Person("nobody")
LOGIN_S, ANSWER_S = 3.0, 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """`edge` is the cache in front of the gateway, if any; `jwt` and `session` sign customer tokens and our own cookie.

    `front` vouches for where a shopper is.
    """

    gateway: str
    publishable: str
    secret: str
    jwt: str
    session: str
    front: str
    edge: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    metrics_port: int = 0


class Away(Exception):
    """The gateway or the edge cannot be asked."""


class Shop:
    """Answers for one page. `send` is how the gateway and the edge are reached: without cookies of its own, or proxies."""

    def __init__(self, settings: Settings, send: httpx.AsyncBaseTransport) -> None:
        self._settings, self._send = settings, send

    async def ready(self, _: Request) -> Response:
        """The page needs nobody."""
        return JSONResponse({})

    async def forward(self, request: Request) -> Response:
        """Pass a request of the page on, as who our session says the shopper is; a cart with the key that is told why."""
        path, who = request.scope["path"], self._who(request)
        names, key = ALLOWED[path][1], self._settings.secret if path == CART else ""
        # Cookies alone speak for a decision: a request with a token would not be answered from the edge's copies.
        found = await self._ask(
            request.method, path, Person(who.label, region=who.region) if path == DECISIONS else who,
            cookies=request.cookies, query={n: request.query_params[n] for n in names if n in request.query_params},
            headers={n: request.headers[n] for n in ASKED if n in request.headers}, body=await request.body(), key=key,
        )  # fmt: skip
        answer = Response(found.content, found.status_code)
        for name, value in found.headers.multi_items():
            if name in ANSWERED:
                answer.headers.append(name, value)
        return answer

    async def session(self, request: Request) -> Response:
        """Who the shopper is, who one can be, and whether there is an edge."""
        return self._said(self._name(request))

    async def switch(self, request: Request) -> Response:
        """Become somebody else: a fresh visitor, who logs in when it is a customer."""
        name = await _name_in(request)
        if name is None:
            return JSONResponse({"title": "who is one of those that /shop/session lists", "status": 422}, 422)
        lines = _cookies(await self._ask("GET", CONTEXTS, NOBODY))
        if VISITOR not in lines:
            raise Away
        visitor = _value(lines[VISITOR])
        if PEOPLE[name].id:
            lines |= await self._login(PEOPLE[name], visitor)
        answer = self._said(name)
        for line in lines.values():
            answer.headers.append("set-cookie", line)
        session = jwt.encode({"who": name, "visitor": visitor}, self._settings.session, algorithm="HS256")
        answer.set_cookie(SESSION, session, httponly=True, samesite="lax")
        return answer

    async def why(self, request: Request) -> Response:
        """Why this shopper, and nobody else, sees what they see: asked with the key that stays here."""
        who = self._who(request)
        query = {"slots": request.query_params.get("slots", ""), **_said_of(request.headers)}
        query |= {"region": who.region} if who.region else {}
        found = await self._ask("GET", EXPLAIN, who, cookies=request.cookies, query=query, key=self._settings.secret)
        return Response(found.content, found.status_code, {"cache-control": "no-store"}, media_type=JSON)

    async def _login(self, person: Person, visitor: str) -> dict[str, str]:
        """Say that the visitor is this customer; answers the cookies once that has come through."""
        event = {
            "id": uuid.uuid4().hex, "source": "shop", "type": "login", "time": _now(), "subject": f"customer:{person.id}",
            "data": {"visitorId": visitor.split(".")[0], "customerId": person.id},
        }  # fmt: skip
        body = json.dumps({"events": [event]}).encode()
        said = await self._ask(
            "POST", EVENTS, NOBODY, body=body, headers={"content-type": JSON}, key=self._settings.secret
        )
        if said.status_code != 202:
            raise Away
        known = _cookies(await self._ask("GET", CONTEXTS, person, cookies={VISITOR: visitor}))
        until = time.monotonic() + LOGIN_S
        while True:
            seen = _cookies(await self._ask("GET", CONTEXTS, NOBODY, cookies={VISITOR: visitor}))
            if _segments(seen) == _segments(known) or time.monotonic() > until:
                return seen
            await asyncio.sleep(0.02)

    def _name(self, request: Request) -> str:
        """Who our session says it is, as long as its visitor is the browser's; everybody else is a guest."""
        try:
            found = jwt.decode(request.cookies.get(SESSION, ""), self._settings.session, algorithms=["HS256"])
        except jwt.InvalidTokenError:
            return "guest"
        return found["who"] if found["visitor"] == request.cookies.get(VISITOR) and found["who"] in PEOPLE else "guest"

    def _who(self, request: Request) -> Person:
        return PEOPLE[self._name(request)]

    def _said(self, name: str) -> JSONResponse:
        people = {key: person.label for key, person in PEOPLE.items()}
        body = {"who": name, "people": people, "edge": bool(self._settings.edge)}
        return JSONResponse(body, headers={"cache-control": "no-store"})

    async def _ask(
        self, method: str, path: str, who: Person, *, cookies: Mapping[str, str] = {}, query: Mapping[str, str] = {},
        headers: Mapping[str, str] = {}, body: bytes = b"", key: str = "",
    ) -> httpx.Response:  # fmt: skip
        """Ask the gateway, or the edge for a decision, as `who`. Raises Away."""
        sent = {**headers, "x-api-key": key or self._settings.publishable}
        if kept := [f"{n}={cookies[n]}" for n in (VISITOR, CONTEXT) if cookies.get(n, "\xff").isascii()]:
            sent["cookie"] = "; ".join(kept)
        if who.id:
            sent["authorization"] = f"Bearer {customer_token(self._settings.jwt, who.id)}"
        if who.region:
            sent |= {"x-fact-region": quote(who.region), "x-front-key": self._settings.front}
        base = self._settings.edge if path == DECISIONS and self._settings.edge else self._settings.gateway
        timeout = {"timeout": httpx.Timeout(ANSWER_S).as_dict()}
        raw = [(n.encode(), v.encode("latin-1")) for n, v in sent.items()]
        request = httpx.Request(method, base + path, params=query, headers=raw, content=body, extensions=timeout)
        try:
            answer = await self._send.handle_async_request(request)
            await answer.aread()
        except httpx.HTTPError as error:
            raise Away from error
        return answer


async def _name_in(request: Request) -> str | None:
    """The person a switch names, when it is one."""
    if request.headers.get("content-type") != JSON:  # what another site's form cannot send
        return None
    try:
        body = read_json(await request.body())
    except Problem:
        return None
    name = body.get("who") if isinstance(body, dict) else None
    return name if isinstance(name, str) and name in PEOPLE else None


def _cookies(answer: httpx.Response) -> dict[str, str]:
    """The lines that set cookies, by name."""
    return {line.split("=", 1)[0]: line for line in answer.headers.get_list("set-cookie")}


def _value(line: str) -> str:
    return line.split(";", 1)[0].split("=", 1)[1]


def _said_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What a browser says of itself, as the gateway reads it."""
    language = headers.get("accept-language", "").split(",")[0].split(";")[0].split("-")[0].strip().lower()
    return {"device": "mobile" if "mobi" in headers.get("user-agent", "").lower() else "desktop", "language": language}


def _segments(lines: Mapping[str, str]) -> str:
    """The segments a context cookie was signed for."""
    return _value(lines[CONTEXT]).split("|")[0] if CONTEXT in lines else ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Pages(StaticFiles):
    """The page may load its own parts and pictures, and nothing may frame it."""

    def file_response(self, *args: Any, **named: Any) -> Response:
        """As Starlette's, with the policy."""
        answer = super().file_response(*args, **named)
        answer.headers.update(
            {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}
        )
        return answer


async def _away(_: Request, error: Exception) -> Response:
    return JSONResponse({"title": "The shop cannot be asked now", "status": 502}, 502)


def application(settings: Settings, send: httpx.AsyncBaseTransport) -> Any:
    """The page, what is passed on, and the shop's own: who am I, and why."""
    shop = Shop(settings, send)
    routes = [
        *(Route(path, shop.forward, methods=[method]) for path, (method, _) in ALLOWED.items()),
        Route("/readyz", shop.ready),
        Route("/shop/session", shop.session, methods=["GET"]),
        Route("/shop/session", shop.switch, methods=["POST"]),
        Route("/shop/why", shop.why),
        Mount("/", Pages(directory=PAGES, html=True)),
    ]
    app = Starlette(routes=routes, exception_handlers={Away: _away})
    return Limits(app, service="storefront", max_body=MOST_BODY)


@asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[Service]:
    """The server as a process."""
    async with httpx.AsyncHTTPTransport() as send:
        yield Service("storefront", application(settings, send), settings.host, settings.port)


if __name__ == "__main__":
    run(build, load(Settings, PREFIX, os.environ))
