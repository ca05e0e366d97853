"""API keys: publishable (a browser), secret (a storefront's server), admin (a person or tool, with a role)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

import msgspec
from chassis.auth import SERVER, Actor
from chassis.problems import Problem
from chassis.websites import NAME

Website = Annotated[str, msgspec.Meta(pattern=rf"^{NAME}\Z")]


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key, known by the SHA-256 of its text. `origins`: from whose pages a browser may call with it, beside our own.

    A storefront's is of one `website`; an admin's of `websites`, or of all.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,120}$")]  # it travels in a header
    sha256: str
    kind: str
    website: Website = "main"
    role: str = "viewer"
    websites: tuple[Website, ...] = ()
    origins: tuple[Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]{1,200}$")], ...] = ()

    @property
    def actor(self) -> Actor:
        """For whom services are asked."""
        if self.kind == "secret":
            return Actor(self.id, SERVER, (self.website,))
        return Actor(self.id, self.role, self.websites)

    def at(self, website: str | None) -> str:
        """The website somebody asks for, by default the first of his. Raises Problem 403 for one that is not."""
        mine = (self.website,) if self.kind != "admin" else self.websites
        if website is None:
            return mine[0] if mine else self.website
        if mine and website not in mine:
            raise Problem("not-your-website", 403, "This is of a website that is not yours")
        return website


class Keys:
    """The keys of an installation, from their JSON. Raises msgspec.ValidationError for a broken list."""

    def __init__(self, text: str) -> None:
        self._keys = {k.sha256: k for k in msgspec.json.decode(text, type=list[ApiKey])}
        self._seen: dict[bytes, ApiKey] = {}

    def find(self, text: bytes) -> ApiKey | None:
        """The key of this text. Known ones are remembered, so that the hot path does not hash."""
        key = self._seen.get(text)
        if key is None and 0 < len(text) <= 200:
            digest = hashlib.sha256(text).hexdigest()
            key = next((k for d, k in self._keys.items() if hmac.compare_digest(d, digest)), None)
            if key is not None:
                self._seen[text] = key
        return key

    @property
    def websites(self) -> frozenset[str]:
        """Those of any key."""
        return frozenset(key.website for key in self._keys.values())

    @property
    def origins(self) -> frozenset[str]:
        """Those of any key."""
        return frozenset(origin for key in self._keys.values() for origin in key.origins)

    def require(self, text: str | bytes | None, kinds: tuple[str, ...], *, role: str = "viewer") -> ApiKey:
        """The key, when it is of one of the kinds and has the role. Raises Problem 401 or 403, without a hint."""
        key = self.find(text.encode() if isinstance(text, str) else text or b"")
        if key is None:
            raise Problem("unauthenticated", 401, "Unauthenticated")
        if key.kind not in kinds or (key.kind == "admin" and not key.actor.may(role)):
            raise Problem("forbidden", 403, "Forbidden")
        return key
