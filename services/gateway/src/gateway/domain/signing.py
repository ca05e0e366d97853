"""Keys per purpose, each with an id: the first one signs, every one is accepted, so that keys can be changed without a break."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hmac import compare_digest

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

ENTRY = re.compile(r"(?P<id>[a-z0-9]{1,16}):(?P<secret>[!-~]{32,200})")


def secrets_of(text: str) -> dict[str, bytes]:
    """Secrets by id, from `id:secret` with commas between. Raises ValueError for a text that is no such list."""
    found = [ENTRY.fullmatch(entry) for entry in text.split(",") if text]
    if not all(found):
        raise ValueError("keys are id:secret with commas between; a secret has 32 to 200 characters")
    return {m["id"]: m["secret"].encode() for m in found if m}


class Ring:
    """The keys of one purpose, as `secrets_of` reads them. Signatures are HMAC-SHA-256 in base64url, without padding."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for a text without a key."""
        if not text:
            raise ValueError("a key is needed")
        # Begun with its key once, and not for every request.
        self._begun = {name: HMAC(secret, SHA256()) for name, secret in secrets_of(text).items()}
        self.newest = next(iter(self._begun))

    def signature(self, text: str) -> str:
        """By the newest key."""
        return _signature(self._begun[self.newest], text).decode()

    def genuine(self, key_id: str, text: str, signature: str) -> bool:
        """Whether one of our keys, named by its id, made the signature."""
        begun = self._begun.get(key_id)
        if begun is None or not text.isascii() or not signature.isascii():
            return False
        return compare_digest(_signature(begun, text), signature.encode())


def _signature(begun: HMAC, text: str) -> bytes:
    made = begun.copy()
    made.update(text.encode())
    return urlsafe_b64encode(made.finalize()).rstrip(b"=")


@dataclass(frozen=True, slots=True)
class Rings:
    """The keys of the gateway, one ring per purpose; `front` is what vouches for the facts of a request.

    `caches`: what caches say that key by the URL alone, by the id of each.
    """

    visitor: Ring
    context: Ring
    edge: Ring
    aud: Ring
    front: bytes
    caches: Mapping[str, bytes]
