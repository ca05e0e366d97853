"""Service to service: signed tokens that live for a minute and name their audience."""

from __future__ import annotations

import time

import jwt

ALGORITHM = "HS256"
LIFE_S = 60


class Refused(Exception):
    """The token is missing, forged, expired or meant for somebody else."""


class ServiceTokens:
    """Issues tokens as `issuer` and verifies others' with the shared secret (at least 32 bytes)."""

    def __init__(self, secret: str, issuer: str) -> None:
        if len(secret) < 32:
            raise ValueError("the service secret must have at least 32 characters")
        self._secret, self._issuer = secret, issuer
        self._cached: dict[str, tuple[float, str]] = {}

    def issue(self, audience: str) -> str:
        """A token for `audience`; one is used for half its life."""
        now = time.time()
        until, token = self._cached.get(audience, (0.0, ""))
        if now > until:
            claims = {"iss": self._issuer, "aud": audience, "iat": int(now), "exp": int(now) + LIFE_S}
            token = jwt.encode(claims, self._secret, algorithm=ALGORITHM)
            self._cached[audience] = (now + LIFE_S / 2, token)
        return token

    def verify(self, token: str, audience: str) -> str:
        """The issuer of a valid token. Raises Refused."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=audience,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Refused(type(error).__name__) from None
        return str(claims["iss"])
