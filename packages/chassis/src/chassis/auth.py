"""Service to service: signed tokens that live for a minute, name their audience, and for whom it is asked, if for anybody."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, NamedTuple

import jwt

from chassis.clock import SKEW_MS

ALGORITHM = "HS256"
LIFE_S, MOST_CACHED = 60, 1000
ROLES = ("viewer", "editor", "marketer", "approver", "admin")  # each may do what those before it may
SERVER = "server"  # a storefront's own: it may do what no browser may, and nothing of a merchant


class Actor(NamedTuple):
    """For whom something is asked: the id of a key, its role, and of which websites it is; without any, of all."""

    subject: str
    role: str
    websites: tuple[str, ...] = ()

    def may(self, role: str) -> bool:
        """Whether this is enough where `role` is needed."""
        if SERVER in (self.role, role):
            return self.role == role
        return self.role in ROLES and ROLES.index(self.role) >= ROLES.index(role)

    def serves(self, websites: Collection[str]) -> bool:
        """Whether all of these are theirs; of what names none, every website is one."""
        return not self.websites or (bool(websites) and set(websites) <= set(self.websites))


class Refused(Exception):
    """The token is missing, forged, expired or meant for somebody else."""


class ServiceTokens:
    """Issues tokens as `issuer` and verifies others' with the shared secret (at least 32 bytes)."""

    def __init__(self, secret: str, issuer: str) -> None:
        if len(secret) < 32:
            raise ValueError("the service secret must have at least 32 characters")
        self._secret, self._issuer = secret, issuer
        self._cached: dict[tuple[str, Actor | None], tuple[float, str]] = {}

    def issue(self, audience: str, actor: Actor | None = None) -> str:
        """A token for `audience`; one is used for half its life."""
        now = time.time()
        until, token = self._cached.get((audience, actor), (0.0, ""))
        if now > until:
            claims: dict[str, Any] = {"iss": self._issuer, "aud": audience, "iat": int(now), "exp": int(now) + LIFE_S}
            claims |= {"sub": actor.subject, "role": actor.role, "websites": list(actor.websites)} if actor else {}
            token = jwt.encode(claims, self._secret, algorithm=ALGORITHM)
            if len(self._cached) >= MOST_CACHED:
                self._cached.clear()
            self._cached[audience, actor] = (now + LIFE_S / 2, token)
        return token

    def verify(self, token: str, audience: str) -> tuple[str, Actor | None]:
        """The issuer of a valid token, by whosever clock, and for whom. Raises Refused."""
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=[ALGORITHM], audience=audience, leeway=SKEW_MS / 1000,
                options={"require": ["exp", "iss", "aud"]},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise Refused(type(error).__name__) from None
        if not {"sub", "role", "websites"} <= claims.keys():
            return str(claims["iss"]), None
        return str(claims["iss"]), Actor(claims["sub"], str(claims["role"]), tuple(map(str, claims["websites"])))
