"""Keys per purpose, each with an id: the first one signs, every one is accepted, so that keys can be changed without a break."""

from __future__ import annotations

import hashlib
import re

from itsdangerous import Signer

ENTRY = re.compile(r"(?P<id>[a-z0-9]{1,16}):(?P<secret>[!-~]{32,200})")


class Ring:
    """The keys of one purpose, from `id:secret` with commas between. Signatures are HMAC-SHA-256 in base64url."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for a text that is no such list."""
        found = [ENTRY.fullmatch(entry) for entry in text.split(",")]
        if not all(found):
            raise ValueError("keys are id:secret with commas between; a secret has 32 to 200 characters")
        self._signers = {
            m["id"]: Signer(m["secret"], key_derivation="none", digest_method=hashlib.sha256) for m in found if m
        }
        self.newest = next(iter(self._signers))

    def signature(self, text: str) -> str:
        """By the newest key."""
        return self._signers[self.newest].get_signature(text).decode()

    def genuine(self, key_id: str, text: str, signature: str) -> bool:
        """Whether one of our keys, named by its id, made the signature."""
        signer = self._signers.get(key_id)
        return (
            signer is not None and text.isascii() and signature.isascii() and signer.verify_signature(text, signature)
        )
