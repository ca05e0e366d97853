"""Signed cookies: who a visitor is (opaque), and, for a few minutes, in what he differs from a stranger."""

from __future__ import annotations

import base64
import re

from gateway.domain.signing import Ring

VISITOR, CONTEXT = "__Host-ff_vid", "__Host-ff_ctx"
NAME_LENGTH = 22
_IN_HEADER = re.compile(rb"(?:^|;)\s*" + VISITOR.encode() + rb"=([^;]*)")


def visitor_cookie(ring: Ring, random: bytes) -> tuple[str, str]:
    """(visitor id, cookie value) from 16 random bytes."""
    name = base64.urlsafe_b64encode(random).decode().rstrip("=")
    text = f"{name}.{ring.newest}"
    return name, f"{text}.{ring.signature(text)}"


def visitor_of(ring: Ring, cookie: str) -> str | None:
    """The visitor id of a genuine cookie."""
    text, _, signature = cookie.rpartition(".")
    name, _, key_id = text.rpartition(".")
    return name if len(name) == NAME_LENGTH and ring.genuine(key_id, text, signature) else None


def context_cookie(ring: Ring, codes: str, expires_s: int, visitor: str, api_key: str, *, version: int) -> str:
    """`codes` as in `dimensions.codes`, of a version of the definitions; expiry in epoch seconds.

    It belongs to one visitor cookie and one API key, for what has no code on one website may have one on another; the edge
    checks both.
    """
    text = f"{codes}|{expires_s}|{version}|{ring.newest}"
    return f"{text}|{ring.signature(f'{text}|{visitor}|{api_key}')}"


def cookie_in(header: bytes) -> str:
    """The visitor's cookie of a header line; of one that is there twice none, for two readers may take different ones."""
    found = _IN_HEADER.findall(header)
    return found[0].strip().decode("latin-1") if len(found) == 1 else ""
