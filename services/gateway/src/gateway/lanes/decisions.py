"""The raw ASGI callable in front of everything: GET /v1/decisions; all else goes to the FastAPI application."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, unquote

from chassis.problems import Problem

from gateway.adapters.keys import Keys
from gateway.adapters.tokens import CustomerTokens
from gateway.domain import probing
from gateway.domain.dimensions import FACTS, PAGE, Seen
from gateway.domain.identity import VISITOR, cookies_of, visitor_of
from gateway.domain.kept import Kept
from gateway.domain.release import Release
from gateway.domain.sharing import Proof, proof, shareable
from gateway.domain.signing import Ring
from gateway.domain.targeting import MOST_LOCALE, SLOTS, Plan, are_slots
from gateway.flows.decide import Decider, decided, look_up, respond
from gateway.flows.probe import Probes

PATH = "/v1/decisions"
MOST_QUERY, MOST_FIELDS, MOST_IDENTITIES, MOST_PLANS, MOST_VALUE = 2000, 40, 50_000, 32 << 20, 200
PROOF = (b"x-edge-key", b"x-edge-mask", b"x-edge-aud", b"x-edge-proof", b"x-api-key")
PARAMETERS = {"landing_page": "path"}  # what a page calls it in the query

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


@dataclass(frozen=True, slots=True)
class Rings:
    """The keys of the gateway, one ring per purpose; `front` is what vouches for the facts of a request."""

    visitor: Ring
    context: Ring
    edge: Ring
    front: bytes


class Hot:
    """Remembers what it verified and parsed: cookies, and the plan of a query string as long as nothing is published.

    Of a cookie only a digest is remembered: whoever sends it chooses how long it is.
    """

    def __init__(
        self, app: Any, decider: Decider, keys: Keys, *, rings: Rings, tokens: CustomerTokens, probes: Probes
    ) -> None:
        self._app, self._decider, self._keys, self._tokens, self.rings = app, decider, keys, tokens, rings
        self._probes = probes
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
        headers = headers_of(scope)
        if probing.MARK in scope["query_string"]:
            await self._probed(scope, receive, send, headers)
            return
        key = headers.get(b"x-api-key", b"")
        try:
            self._plan(scope, self._decider.knowledge.release, key)
            proven = self._proof(scope, headers)
            stranger = proven is not None and proven.base
            identity = None if stranger else self._identity(headers)
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        now_ms = self._decider.clock.now_ms()
        known = await look_up(self._decider, identity, now_ms)

        def seen_of(plan: Plan) -> Seen:
            return known.seen({}, {}) if stranger or not plan.late else known.seen(*self.request(scope, headers))

        release, plan, seen, answer = await decided(
            self._decider, lambda release: self._plan(scope, release, key), seen_of, known, now_ms
        )
        said = known.epoch >= plan.epoch
        share = said and proven is not None and shareable(plan, seen, proven) and self._may_share(release, proven)
        await respond(send, answer, share=share, etag=headers.get(b"if-none-match", b""))

    def _may_share(self, release: Release, proven: Proof) -> bool:
        """Whether an edge may keep an answer: when it is trusted, and this is the newest there is, for certain."""
        known = self._decider.knowledge
        newest = release is known.release and known.is_newest(asyncio.get_running_loop().time())
        return self._probes.trusts(proven.key_id) and newest

    async def _probed(self, scope: Any, receive: Any, send: Any, headers: Mapping[bytes, bytes]) -> None:
        """The page by which an edge is tried: by the same law, but before the edge is trusted."""
        name, proven = _fields(scope["query_string"]).get("slots", ""), self._proof(scope, headers)
        if not probing.genuine(self.rings.edge, name):
            await Problem("invalid-request", 400, "The request is not valid").response()(scope, receive, send)
            return
        stranger = proven is not None and proven.base
        identity = b"" if stranger else self._identity(headers) or b""
        asker = probing.who(self.rings.visitor, name, identity.decode().removeprefix("v:"))
        facts = {} if stranger else self.request(scope, headers)[0]
        share = shareable(probing.plan(name), probing.seen(asker, facts), proven)
        now_ms = self._decider.clock.now_ms()
        answer = probing.page(name, asker, facts, proven.key_id if proven else "", now_ms=now_ms)
        await respond(send, answer, share=share, etag=b"")

    def _is_front(self, headers: Mapping[bytes, bytes]) -> bool:
        return hmac.compare_digest(headers.get(b"x-front-key", b""), self.rings.front)

    def address(self, scope: Any, headers: Mapping[bytes, bytes]) -> str:
        """Where a request comes from, as who has the key of the front says; else who is connected."""
        said = headers.get(b"x-fact-address", b"") if self._is_front(headers) else b""
        return said.decode("latin-1") or (scope["client"] or ("",))[0]

    def request(self, scope: Any, headers: Mapping[bytes, bytes]) -> tuple[dict[str, str], dict[str, str]]:
        """(facts, page): what is trusted of a request, and what the page says of itself.

        Facts come from who has the key of the front, or a secret API key; from a browser they count for nothing.
        """
        front = self._is_front(headers)
        key = self._keys.find(headers.get(b"x-api-key", b""))
        trusted = front or (key is not None and key.kind == "secret")
        said = {name: headers.get(b"x-fact-" + name.encode(), b"") for name in FACTS} if trusted else {}
        facts = {name: unquote(value.decode("latin-1"))[:MOST_VALUE] for name, value in said.items() if value}
        query = _fields(scope["query_string"])
        page = {name: query.get(PARAMETERS.get(name, name), "") for name in PAGE}
        page["referrer"] = headers.get(b"referer", b"").decode("latin-1")
        language = headers.get(b"accept-language", b"").decode("latin-1").split(",")[0].split(";")[0]
        page["language"] = language.split("-")[0].strip().lower()
        return facts, {name: value[:MOST_VALUE] for name, value in page.items() if value}

    def _proof(self, scope: Any, headers: Mapping[bytes, bytes]) -> Proof | None:
        if b"x-edge-proof" not in headers:
            return None
        key_id, mask, audience, signature, key = (headers.get(name, b"").decode("latin-1") for name in PROOF)
        url = f"{PATH}?{scope['query_string'].decode('latin-1')}"
        return proof(
            self.rings.edge, key_id=key_id, mask=mask, audience=audience, signature=signature, key=key, url=url
        )

    def _plan(self, scope: Any, release: Release, key: bytes) -> Plan:
        if scope["method"] not in ("GET", "HEAD"):
            raise Problem("method-not-allowed", 405, "Method not allowed", headers={"allow": "GET, HEAD"})
        query = scope["query_string"]
        found = self._plans.get((query, key))
        if found is not None and found.release == release.number:
            return found
        plan = self._read(release, query, key)
        self._plans.put((query, key), plan, len(query) + len(key) + plan.size)
        return plan

    def _read(self, release: Release, query: bytes, key: bytes) -> Plan:
        who = self._keys.require(key.decode("latin-1"), ("publishable", "secret"))
        asked = _fields(query)
        slots = [s for s in asked.get("slots", "").split(",") if s]
        if not slots or not are_slots(slots):
            errors = [{"pointer": "/slots", "detail": SLOTS}]
            raise Problem("invalid-request", 400, "The request is not valid", errors=errors)
        return release.plan(who.website, sorted(set(slots)), asked.get("locale", "*")[:MOST_LOCALE])

    def _identity(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        bearer, cookie = headers.get(b"authorization"), headers.get(b"cookie")
        if bearer:
            return b"c:" + self._tokens.customer_of(bearer).encode()
        if not cookie:
            return None
        digest = blake2b(cookie, digest_size=16).digest()
        found = self._identities.get(digest, False)
        if found is False:
            name = visitor_of(self.rings.visitor, cookies_of(cookie).get(VISITOR, ""))
            found = None if name is None else f"v:{name}".encode()
            if len(self._identities) >= MOST_IDENTITIES:
                self._identities.clear()
            self._identities[digest] = found
        return found  # type: ignore[return-value]


def headers_of(scope: Any) -> dict[bytes, bytes]:
    """The headers of a request. Lines of cookies are one; of any other header the last one counts."""
    found = dict(scope["headers"])
    if b"cookie" in found:
        found[b"cookie"] = b"; ".join([value for name, value in scope["headers"] if name == b"cookie"])
    return found
