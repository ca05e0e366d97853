"""Signed cookies: who a visitor is (opaque), and, for a few minutes, in what he differs from a stranger."""

from __future__ import annotations

import base64

from gateway.domain.signing import Ring

VISITOR, CONTEXT = "__Host-ff_vid", "__Host-ff_ctx"
NAME_LENGTH = 22


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


def context_cookie(ring: Ring, codes: str, expires_s: int, visitor: str, *, version: int) -> str:
    """`codes` as in `dimensions.codes`, of a version of the definitions; expiry in epoch seconds.

    It belongs to one visitor cookie; the edge checks it too.
    """
    text = f"{codes}|{expires_s}|{version}|{ring.newest}"
    return f"{text}|{ring.signature(f'{text}|{visitor}')}"


def cookies_of(header: bytes) -> dict[str, str]:
    """Cookies of a header line; of ours none that is there twice, for two readers may take different ones."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for part in header.decode("latin-1").split(";"):
        name, eq, value = part.strip().partition("=")
        if eq and name in found:
            twice.add(name)
        elif eq:
            found[name] = value
    for name in twice & {VISITOR, CONTEXT}:
        del found[name]
    return found
