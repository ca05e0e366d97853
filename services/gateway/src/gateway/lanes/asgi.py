"""The ASGI callable in front of everything: what no route is for is refused, decisions are answered, all else goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from chassis.problems import MEDIA_TYPE, Problem

from gateway.adapters.keys import Keys
from gateway.adapters.limits import Limiter
from gateway.domain import cors
from gateway.domain.answer import encode
from gateway.domain.kept import Kept
from gateway.domain.reply import Headers, Reply
from gateway.lanes.decisions import PATH, Decisions
from gateway.lanes.request import Reader, Request, is_twice, request_of

MOST_QUERY, MOST_FIELDS = 2000, 40
MOST_OURS = 1 << 16  # bytes of names that were found to be ours
QUESTION = "footfall.question"  # in a scope: what the connection read already, or why that is refused
OF_ANYBODY = (b"/healthz", b"/readyz")  # asked by who runs us, at whatever address


class Door:
    """What every request must be, whichever way it came. `hosts`: the names we go by."""

    def __init__(self, hosts: Collection[str]) -> None:
        if not hosts:
            raise ValueError("hosts: the names the shop is asked by")
        named = "|".join(re.escape(host.encode()).decode() for host in hosts)
        self._host = re.compile(rf"(?:{named})(?::[0-9]{{1,5}})?".encode(), re.IGNORECASE)
        self._ours: Kept[bytes, bool] = Kept(MOST_OURS)

    def refusal(self, request: Request, headers: Headers) -> Problem | None:
        """Why a request is none of ours. `headers`: every line of them."""
        if not request.path.isascii() or not request.query.isascii():
            return Problem("invalid-request", 400, "A path and a query are ASCII; anything else is encoded")
        if len(request.query) > MOST_QUERY:
            return Problem("query-too-long", 414, "The query is too long")
        if request.query.count(b"&") >= MOST_FIELDS:
            return Problem("invalid-request", 400, f"The query has more than {MOST_FIELDS} fields")
        if not all(value.isascii() for _, value in headers):
            return Problem("invalid-request", 400, "Headers are ASCII")
        if is_twice(headers, request.fields):
            return Problem("invalid-request", 400, "A header that says one thing is there twice")
        if not self.is_ours(request.fields) and request.path not in OF_ANYBODY:
            return Problem("unknown-host", 421, "There is nothing of that name here")
        return None

    def is_ours(self, fields: Mapping[bytes, bytes]) -> bool:
        """Whether the host asked for is one of ours."""
        host = fields.get(b"host", b"")
        if self._ours.get(host):
            return True
        found = self._host.fullmatch(host) is not None
        if found:
            self._ours.put(host, True, len(host) + 100)
        return found


class Lane:
    """See the module. `app` is for what is no decision."""

    def __init__(
        self, app: Any, door: Door, decisions: Decisions, keys: Keys, reader: Reader, limiter: Limiter
    ) -> None:
        self._app, self._door, self._decisions, self._keys = app, door, decisions, keys
        self._reader, self._limiter = reader, limiter

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = request_of(scope)
        try:
            if (refusal := self._door.refusal(request, scope["headers"])) is not None:
                raise refusal
            origin = request.fields.get(b"origin")
            if (
                origin is not None
                and request.method == "OPTIONS"
                and b"access-control-request-method" in request.fields
            ):
                reply = self._preflight(origin)
            elif request.path == PATH:
                question = scope.get(QUESTION) or self._decisions.begin(request)
                if isinstance(question, Problem):
                    raise question
                reply = self._decisions.now(question) or await self._decisions.later(question)
            else:
                receive = charged(receive, self._count(request))
                await self._app(scope, receive, self._told(request, origin, send))
                return
        except Problem as problem:
            reply = refused(problem).marked(self._cors(request, request.fields.get(b"origin")))
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _count(self, request: Request) -> Callable[[int], None]:
        """Whatever is asked for, whether or not there is such a route: of a server or a merchant by the key, for many people may
        be behind it; of anybody else by the address, before anything is done for them. Raises Problem 401, 429.

        So many bytes of its body are to be charged by calling what this answers.
        """
        key = self._keys.find(request.fields.get(b"x-api-key", b""))
        address = self._reader.address(request) if key is None or key.kind == "publishable" else None
        if address is not None:
            self._limiter.take_of(address)
        if key is not None:
            who = self._reader.identity(request) if key.kind == "publishable" else None
            self._limiter.take(key.id, person=who)
        return partial(self._limiter.take_bytes, key=None if key is None else key.id, address=address)

    def _preflight(self, origin: bytes) -> Reply:
        found = cors.preflight(self._keys.origins, origin)
        if found is None:
            raise Problem("origin-not-allowed", 403, "Pages of this origin may not call")
        return Reply(204, found, b"")

    def _cors(self, request: Request, origin: bytes | None) -> Headers:
        key = self._keys.find(request.fields.get(b"x-api-key", b""))
        return [] if key is None else cors.of(key.origins, origin)

    def _told(self, request: Request, origin: bytes | None, send: Any) -> Any:
        more = self._cors(request, origin)
        if not more:
            return send

        async def telling(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        return telling


def charged(receive: Any, charge: Callable[[int], None]) -> Any:
    """What is received, of whose body every part is charged before anybody has it. It raises what `charge` does."""

    async def charging() -> Any:
        message = await receive()
        if body := message.get("body"):
            charge(len(body))
        return message

    return charging


def refused(problem: Problem) -> Reply:
    """A problem as an answer that no cache keeps."""
    body = encode(problem.body())
    more = {"cache-control": "no-store", **problem.headers}
    headers = [(name.encode(), value.encode()) for name, value in more.items()]
    length = (b"content-length", b"%d" % len(body))
    return Reply(problem.status, [(b"content-type", MEDIA_TYPE.encode()), length, *headers], body)
