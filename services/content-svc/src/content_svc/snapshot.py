"""Published blocks and slots in memory, swapped whole by version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chassis.documents import Document

from content_svc.domain.select import Block, Slot, order

BLOCK, SLOT = "block", "slot"


@dataclass(frozen=True, slots=True)
class Published:
    """One version of everything published."""

    version: int
    slots: dict[str, Slot]
    changes: list[dict[str, Any]]


def block_of(key: str, body: dict[str, Any]) -> Block:
    """The typed block of a checked body."""
    audience = body["audience"]
    return Block(
        key=key,
        websites=frozenset(body["websites"]),
        slots=tuple(body["slots"]),
        any_of=frozenset(audience["any_of"]),
        all_of=frozenset(audience["all_of"]),
        none_of=frozenset(audience["none_of"]),
        groups=frozenset(audience["groups"]),
        priority=body["priority"],
        starts_at=body["starts_at"],
        ends_at=body["ends_at"],
        content=body["content"],
    )


def build(version: int, documents: Sequence[Document], changes: list[dict[str, Any]]) -> Published:
    """Put the live blocks into the slots they name."""
    live = [block_of(d.key, d.body) for d in documents if d.kind == BLOCK and d.body["status"] == "live"]
    slots = {
        d.key: Slot(
            key=d.key,
            websites=frozenset(d.body["websites"]),
            capacity=d.body["capacity"],
            display=d.body["display"],
            default=d.body["default"],
            blocks=order([b for b in live if d.key in b.slots]),
        )
        for d in documents
        if d.kind == SLOT
    }
    return Published(version, slots, changes)
