"""Customer tokens of the shop's identity provider: JWTs, verified against its published keys."""

from __future__ import annotations

import json
import time
from hashlib import blake2b

import jwt
from chassis.clock import SKEW_MS
from chassis.problems import Problem

ALGORITHMS = ["RS256", "ES256", "EdDSA", "HS256"]
MOST_REMEMBERED = 50_000


class CustomerTokens:
    """`jwks` is the key set as JSON; without one no token is accepted."""

    def __init__(self, jwks: str, *, issuer: str, audience: str) -> None:
        self._keys = {k.key_id: k for k in jwt.PyJWKSet.from_dict(json.loads(jwks)).keys} if jwks else {}
        self._issuer, self._audience = issuer, audience
        self._seen: dict[bytes, tuple[float, str]] = {}

    def customer_of(self, header: bytes) -> str:
        """The customer id of an Authorization header. Raises Problem 401."""
        digest = blake2b(header, digest_size=16).digest()
        found = self._seen.get(digest)
        if found is not None and time.time() < found[0]:
            return found[1]
        try:
            scheme, _, token = header.decode("latin-1").partition(" ")
            key = self._keys[str(jwt.get_unverified_header(token).get("kid"))]
            claims = jwt.decode(
                token, key, algorithms=[key.algorithm_name], issuer=self._issuer, audience=self._audience,
                leeway=SKEW_MS / 1000, options={"require": ["exp", "sub", "iss", "aud"]},
            )  # fmt: skip
            claims["sub"].encode()  # it is to be a key
            if scheme.lower() != "bearer" or key.algorithm_name not in ALGORITHMS or not 0 < len(claims["sub"]) <= 200:
                raise Problem("unauthenticated", 401, "Unauthenticated")
        except (jwt.PyJWTError, KeyError, ValueError):
            raise Problem("unauthenticated", 401, "Unauthenticated") from None
        if len(self._seen) >= MOST_REMEMBERED:
            self._seen.clear()
        self._seen[digest] = (min(claims["exp"], time.time() + 60), claims["sub"])
        return str(claims["sub"])
