"""What a request says, and how much of it is believed."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from conditions.context import FACTS, PAGE

from gateway.adapters.keys import Keys
from gateway.adapters.tokens import CustomerTokens
from gateway.domain.identity import cookie_in, visitor_of
from gateway.domain.kept import Kept
from gateway.domain.signing import Rings

MOST_VALUE, MOST_IDENTITIES, IDENTITY_BYTES, SHORT = 200, 16 << 20, 400, 150
CACHE = "cache "  # before the id of a cache: an edge may have the same
ONCE = frozenset((
    b"host", b"authorization", b"content-length", b"content-type", b"idempotency-key", b"if-match", b"x-api-key",
    b"x-front-key", b"x-cache-key", b"x-edge-key", b"x-edge-mask", b"x-edge-aud", b"x-edge-proof", b"x-fact-address",
    *(b"x-fact-" + name.encode() for name in FACTS),
))  # fmt: skip
PARAMETERS = {"landing_page": "path"}  # what a page calls it in the query


class Request(NamedTuple):
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
    if len(found) < len(headers) and b"cookie" in found:
        lines = [value for name, value in headers if name == b"cookie"]
        if len(lines) > 1:
            found[b"cookie"] = b"; ".join(lines)
    return found


def is_twice(headers: list[tuple[bytes, bytes]], fields: Mapping[bytes, bytes]) -> bool:
    """Whether something is there twice of which we believe one line: who reads the first would read what nobody else does.

    `fields`: of these headers.
    """
    if len(fields) == len(headers):
        return False
    names = [name for name, _ in headers if name in ONCE]
    return len(names) > len(set(names))


def front_asks_for(fields: Mapping[bytes, bytes], key: bytes) -> str | None:
    """The address that who stands in front, and has its key, asks for; empty if they do not say. None of anybody else."""
    if not key or not hmac.compare_digest(fields.get(b"x-front-key", b""), key):
        return None
    return fields.get(b"x-fact-address", b"").decode("latin-1")


class Reader:
    """Who asks, from where. It remembers the cookies it verified.

    Of a long one only a digest is remembered: whoever sends it chooses how long it is.
    """

    def __init__(self, keys: Keys, rings: Rings, tokens: CustomerTokens) -> None:
        self._keys, self._rings, self._tokens = keys, rings, tokens
        self._visitors: Kept[bytes, bytes] = Kept(MOST_IDENTITIES)

    def visitor(self, cookie: bytes | None) -> bytes | None:
        """The identity of a genuine cookie, from the lines of all."""
        if not cookie:
            return None
        short = cookie if len(cookie) <= SHORT else blake2b(cookie, digest_size=16).digest()
        found = self._visitors.get(short)
        if found is None:
            name = visitor_of(self._rings.visitor, cookie_in(cookie))
            found = b"" if name is None else b"v:" + name.encode()
            self._visitors.put(short, found, IDENTITY_BYTES)
        return found or None

    def identity(self, request: Request) -> bytes | None:
        """The customer of a token, else the visitor of a cookie. Raises Problem 401."""
        bearer = request.fields.get(b"authorization")
        if bearer:
            return b"c:" + self._tokens.customer_of(bearer).encode()
        return self.visitor(request.fields.get(b"cookie"))

    def cache(self, request: Request) -> str:
        """By which key a cache says that it keys by the URL; empty for anybody else."""
        said = request.fields.get(b"x-cache-key", b"")
        found = (name for name, secret in self._rings.caches.items() if hmac.compare_digest(said, secret))
        return next(map(CACHE.__add__, found), "")

    def address(self, request: Request) -> str:
        """Where a request comes from, as who has the key of the front says; else who is connected."""
        return front_asks_for(request.fields, self._rings.front) or request.client

    def facts(self, request: Request) -> dict[str, str]:
        """What is trusted of a request: from who has the key of the front, or a secret API key; never from a browser."""
        key = self._keys.find(request.fields.get(b"x-api-key", b""))
        front = front_asks_for(request.fields, self._rings.front) is not None
        if not (front or (key is not None and key.kind == "secret")):
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
