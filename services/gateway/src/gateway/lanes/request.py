"""What a request says, and how much of it is believed."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, unquote

from gateway.adapters.keys import Keys
from gateway.adapters.tokens import CustomerTokens
from gateway.domain.dimensions import FACTS, PAGE
from gateway.domain.identity import VISITOR, cookies_of, visitor_of
from gateway.domain.kept import Kept
from gateway.domain.signing import Ring

MOST_VALUE, MOST_IDENTITIES, IDENTITY_BYTES = 200, 8 << 20, 200
PARAMETERS = {"landing_page": "path"}  # what a page calls it in the query


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its body. `fields`: its headers by name; lines of cookies are one, of any other the last one counts."""

    method: str
    path: bytes
    query: bytes
    fields: Mapping[bytes, bytes]
    client: str

    def parameters(self) -> dict[str, str]:
        """Those of the query, decoded."""
        return dict(parse_qsl(self.query.decode("latin-1")))


def request_of(scope: Any) -> Request:
    """From an ASGI scope."""
    client = (scope["client"] or ("",))[0]
    return Request(scope["method"], scope["raw_path"], scope["query_string"], fields_of(scope["headers"]), client)


def fields_of(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name, see Request."""
    found = dict(headers)
    if b"cookie" in found:
        lines = [value for name, value in headers if name == b"cookie"]
        if len(lines) > 1:
            found[b"cookie"] = b"; ".join(lines)
    return found


@dataclass(frozen=True, slots=True)
class Rings:
    """The keys of the gateway, one ring per purpose; `front` is what vouches for the facts of a request."""

    visitor: Ring
    context: Ring
    edge: Ring
    front: bytes


class Reader:
    """Who asks, from where. It remembers the cookies it verified.

    Of a cookie only a digest is remembered: whoever sends it chooses how long it is.
    """

    def __init__(self, keys: Keys, rings: Rings, tokens: CustomerTokens) -> None:
        self._keys, self._rings, self._tokens = keys, rings, tokens
        self._visitors: Kept[bytes, str] = Kept(MOST_IDENTITIES)

    def visitor(self, request: Request) -> str | None:
        """The visitor id of a genuine cookie."""
        cookie = request.fields.get(b"cookie")
        if not cookie:
            return None
        digest = blake2b(cookie, digest_size=16).digest()
        found = self._visitors.get(digest)
        if found is None:
            found = visitor_of(self._rings.visitor, cookies_of(cookie).get(VISITOR, "")) or ""
            self._visitors.put(digest, found, IDENTITY_BYTES)
        return found or None

    def identity(self, request: Request) -> bytes | None:
        """The customer of a token, else the visitor of a cookie. Raises Problem 401."""
        bearer = request.fields.get(b"authorization")
        if bearer:
            return b"c:" + self._tokens.customer_of(bearer).encode()
        name = self.visitor(request)
        return None if name is None else b"v:" + name.encode()

    def _is_front(self, request: Request) -> bool:
        said = request.fields.get(b"x-front-key")
        return said is not None and hmac.compare_digest(said, self._rings.front)

    def address(self, request: Request) -> str:
        """Where a request comes from, as who has the key of the front says; else who is connected."""
        said = request.fields.get(b"x-fact-address", b"") if self._is_front(request) else b""
        return said.decode("latin-1") or request.client

    def facts(self, request: Request) -> dict[str, str]:
        """What is trusted of a request: from who has the key of the front, or a secret API key; never from a browser."""
        key = self._keys.find(request.fields.get(b"x-api-key", b""))
        if not (self._is_front(request) or (key is not None and key.kind == "secret")):
            return {}
        said = {name: request.fields.get(b"x-fact-" + name.encode(), b"") for name in FACTS}
        return {name: unquote(value.decode("latin-1"))[:MOST_VALUE] for name, value in said.items() if value}

    def page(self, request: Request) -> dict[str, str]:
        """What the page says of itself."""
        query = request.parameters()
        page = {name: query.get(PARAMETERS.get(name, name), "") for name in PAGE}
        page["referrer"] = request.fields.get(b"referer", b"").decode("latin-1")
        language = request.fields.get(b"accept-language", b"").decode("latin-1").split(",")[0].split(";")[0]
        page["language"] = language.split("-")[0].strip().lower()
        return {name: value[:MOST_VALUE] for name, value in page.items() if value}
