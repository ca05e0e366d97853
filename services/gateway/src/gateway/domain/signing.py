"""Keys per purpose, each with an id: the first one signs, every one is accepted, so that keys can be changed without a break."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from itsdangerous import Signer
from itsdangerous.signer import SigningAlgorithm

ENTRY = re.compile(r"(?P<id>[a-z0-9]{1,16}):(?P<secret>[!-~]{32,200})")


def secrets_of(text: str) -> dict[str, bytes]:
    """Secrets by id, from `id:secret` with commas between. Raises ValueError for a text that is no such list."""
    found = [ENTRY.fullmatch(entry) for entry in text.split(",") if text]
    if not all(found):
        raise ValueError("keys are id:secret with commas between; a secret has 32 to 200 characters")
    return {m["id"]: m["secret"].encode() for m in found if m}


class Sha256(SigningAlgorithm):
    """HMAC-SHA-256 that was begun with its key: a fifth of what the library's own takes, and the same."""

    def __init__(self, key: bytes) -> None:
        self._key, self._begun = key, hmac.new(key, digestmod="sha256")

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        """32 bytes."""
        if key != self._key:
            raise ValueError("a signer has one key")
        made = self._begun.copy()
        made.update(value)
        return made.digest()


class Ring:
    """The keys of one purpose, as `secrets_of` reads them. Signatures are HMAC-SHA-256 in base64url."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for a text without a key."""
        if not text:
            raise ValueError("a key is needed")
        self._signers = {
            name: Signer(secret, key_derivation="none", algorithm=Sha256(secret))
            for name, secret in secrets_of(text).items()
        }
        self.newest = next(iter(self._signers))

    def signature(self, text: str) -> str:
        """By the newest key."""
        return self._signers[self.newest].get_signature(text).decode()

    def genuine(self, key_id: str, text: str, signature: str) -> bool:
        """Whether one of our keys, named by its id, made the signature."""
        signer = self._signers.get(key_id)
        if signer is None or not text.isascii() or not signature.isascii():
            return False
        return hmac.compare_digest(signer.get_signature(text), signature.encode())


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
