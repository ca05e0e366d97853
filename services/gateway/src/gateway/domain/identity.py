"""Signed cookies: who a visitor is (opaque), and, for a few minutes, which segments the edge may key pages by."""

from __future__ import annotations

import base64
import hashlib
import hmac

VISITOR, CONTEXT = "__Host-ff_vid", "__Host-ff_ctx"
KEY_ID = "1"


def _sign(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def visitor_cookie(secret: str, random: bytes) -> tuple[str, str]:
    """(visitor id, cookie value) from 16 random bytes."""
    name = base64.urlsafe_b64encode(random).decode().rstrip("=")
    text = f"{name}.{KEY_ID}"
    return name, f"{text}.{_sign(secret, text)[:32]}"


def visitor_of(secret: str, cookie: str) -> str | None:
    """The visitor id of a genuine cookie."""
    text, _, signature = cookie.rpartition(".")
    name, _, key_id = text.rpartition(".")
    genuine = hmac.compare_digest(_sign(secret, text)[:32].encode(), signature.encode())
    return name if genuine and key_id == KEY_ID and len(name) == 22 else None


def context_cookie(secret: str, segments: str, expires_s: int) -> str:
    """`segments` is .3.9. (ids, ascending, dots around); expiry in epoch seconds. The edge checks the same signature."""
    text = f"{segments}|{expires_s}"
    return f"{text}|{_sign(secret, text)}"


def cookies_of(header: bytes) -> dict[str, str]:
    """Cookies of a header line; the first of a name counts."""
    found: dict[str, str] = {}
    for part in header.decode("latin-1").split(";"):
        name, eq, value = part.strip().partition("=")
        if eq:
            found.setdefault(name, value)
    return found
