"""The raw ASGI callable in front of everything: GET /v1/decisions; all else goes to the FastAPI application."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl

from chassis.problems import Problem

from gateway.domain.identity import VISITOR, cookies_of, visitor_of
from gateway.domain.targeting import MOST_LOCALE, SLOTS, Plan, are_slots, members, request_context
from gateway.flows.decide import Audience, Decider, decide, respond
from gateway.kept import Kept
from gateway.keys import Keys
from gateway.tokens import CustomerTokens

PATH = "/v1/decisions"
MOST_QUERY, MOST_FIELDS, MOST_IDENTITIES, MOST_PLANS = 2000, 40, 50_000, 32 << 20

DESCRIBED: dict[str, Any] = {
    PATH: {
        "get": {
            "summary": "Which blocks for this visitor",
            "description": "Answers for the visitor cookie or the customer token, in the context the other parameters "
            "give, with ETag, Vary of the segments that matter, tags and a TTL that ends at the next boundary.",
            "security": [{"key": []}, {"key": [], "customer": []}],
            "parameters": [
                {"name": "slots", "in": "query", "required": True, "schema": {"type": "string"},
                 "description": f"{SLOTS}, with commas between"},
                {"name": "locale", "in": "query", "schema": {"type": "string", "default": "*", "maxLength": MOST_LOCALE}},
            ],
            "responses": {"200": {"description": "Blocks per slot, messages, and what was degraded"},
                          "304": {"description": "As the ETag of If-None-Match"}},
        }
    }
}  # fmt: skip


def _refusal(query: bytes) -> Problem | None:
    """Of a query that is more than anybody needs; every route is behind this."""
    if len(query) > MOST_QUERY:
        return Problem("query-too-long", 414, "The query is too long")
    if query.count(b"&") >= MOST_FIELDS:
        return Problem("invalid-request", 400, f"The query has more than {MOST_FIELDS} fields")
    return None


def _fields(query: bytes) -> dict[str, str]:
    return dict(parse_qsl(query.decode("latin-1")))


class Hot:
    """Remembers what it verified and parsed: cookies, and the plan of a query string as long as nothing is published.

    Of a cookie only a digest is remembered: whoever sends it chooses how long it is.
    """

    def __init__(
        self, app: Any, decider: Decider, keys: Keys, *, secrets: tuple[str, str], tokens: CustomerTokens
    ) -> None:
        self._app, self._decider, self._keys, self._tokens = app, decider, keys, tokens
        self._cookie_secret, self._edge_secret = secrets[0], secrets[1].encode()
        self._identities: dict[bytes, bytes | None] = {}
        self._plans: Kept[tuple[bytes, bytes], Plan] = Kept(MOST_PLANS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the module."""
        if scope["type"] == "http" and (refusal := _refusal(scope["query_string"])) is not None:
            await refusal.response()(scope, receive, send)
            return
        if scope["type"] != "http" or scope["path"] != PATH or scope["raw_path"] != PATH.encode():
            await self._app(scope, receive, send)
            return
        cookie = key = etag = bearer = edge = b""
        for name, value in scope["headers"]:
            if name == b"cookie":
                cookie = value
            elif name == b"x-api-key":
                key = value
            elif name == b"if-none-match":
                etag = value
            elif name == b"authorization":
                bearer = value
            elif name == b"x-edge-secret":
                edge = value
        try:
            plan = self._plan(scope, key)
            identity = self._identity(cookie, bearer)
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        answer, who = await decide(self._decider, plan, identity, lambda: self.context(scope))
        extra = [(b"x-ctx", self.segments_of(who).encode())] if edge and edge == self._edge_secret else []
        await respond(send, answer, etag=etag, extra=extra)

    def segments_of(self, who: Audience) -> str:
        """The segments the edge may key by, as the context cookie writes them."""
        return "." + "".join(f"{r.id}." for r in members(self._decider.knowledge.edge, who.atoms, 0))

    def _plan(self, scope: Any, key: bytes) -> Plan:
        if scope["method"] not in ("GET", "HEAD"):
            raise Problem("method-not-allowed", 405, "Method not allowed", headers={"allow": "GET, HEAD"})
        query = scope["query_string"]
        found = self._plans.get((query, key))
        if found is not None and found.release == self._decider.knowledge.release:
            return found
        plan = self._read(scope, query, key)
        self._plans.put((query, key), plan, len(query) + len(key) + plan.size)
        return plan

    def _read(self, scope: Any, query: bytes, key: bytes) -> Plan:
        who = self._keys.require(key.decode("latin-1"), ("publishable", "secret"))
        asked = _fields(query)
        slots = [s for s in asked.get("slots", "").split(",") if s]
        if not slots or not are_slots(slots):
            errors = [{"pointer": "/slots", "detail": SLOTS}]
            raise Problem("invalid-request", 400, "The request is not valid", errors=errors)
        return self._decider.knowledge.plan(who.website, sorted(set(slots)), asked.get("locale", "*")[:MOST_LOCALE])

    def _identity(self, cookie: bytes, bearer: bytes) -> bytes | None:
        if bearer:
            return b"c:" + self._tokens.customer_of(bearer).encode()
        if not cookie:
            return None
        digest = blake2b(cookie, digest_size=16).digest()
        found = self._identities.get(digest, False)
        if found is False:
            name = visitor_of(self._cookie_secret, cookies_of(cookie).get(VISITOR, ""))
            found = None if name is None else f"v:{name}".encode()
            if len(self._identities) >= MOST_IDENTITIES:
                self._identities.clear()
            self._identities[digest] = found
        return found  # type: ignore[return-value]

    def context(self, scope: Any) -> Mapping[str, Any]:
        """What a request says of itself, for segments that depend on it."""
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in scope["headers"]}
        query = _fields(scope["query_string"])
        if "authorization" in headers:
            query["logged_in"] = "1"
        return request_context(headers, query, now_ms=self._decider.clock.now_ms(), zone=self._decider.zone)
