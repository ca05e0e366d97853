"""Builds the facts Footfall publishes, as CloudEvents in canonical proto JSON."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
HEADERS = (("content-type", b"application/cloudevents+json"),)


@lru_cache(maxsize=16)
def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def _envelope(kind: str, source: str, subject: str, *, time_ms: int, data: dict[str, Any]) -> bytes:
    """The id is a digest of the content, so that a fact sent twice can be known as one."""
    body = _encode(data)
    identity = hashlib.blake2b(f"{kind}\0{source}\0{subject}\0".encode() + body, digest_size=16).hexdigest()
    return _encode(
        {
            "specversion": "1.0",
            "id": identity,
            "source": source,
            "type": kind,
            "time": _time(time_ms),
            "subject": subject,
            "data": msgspec.Raw(body),
        }
    )


def membership(
    *, profile: str, segment: str, entered: bool, at_ms: int, cause: str, definition_version: int,
    source_event: str | None, time_ms: int,
) -> bytes:  # fmt: skip
    """A person entered or left a segment (MembershipChanged)."""
    data = {
        "profile": profile, "segment": segment, "entered": entered, "atMs": str(at_ms), "cause": cause,
        "definitionVersion": definition_version, "sourceEvent": source_event or "",
    }  # fmt: skip
    return _envelope("membership_changed", "segment-svc", profile, time_ms=time_ms, data=data)


def targeting(*, source: str, website: str, version: int, tags: list[str], time_ms: int) -> bytes:
    """Something that decides what people see was published, disabled or deleted (TargetingChanged)."""
    data = {"website": website, "version": str(version), "tags": tags}
    return _envelope("targeting_changed", source, website or "*", time_ms=time_ms, data=data)
