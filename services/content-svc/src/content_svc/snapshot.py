"""Published blocks and slots in memory, swapped whole by version; a broken one is left out alone, and said so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from chassis.documents import Document
from chassis.snapshot import Once
from chassis.telemetry import get_logger
from prometheus_client import Counter

from content_svc.domain.read import block_of, slot_of
from content_svc.domain.select import Block, Report, Slot, Visitor, are_others, explain, select

BLOCK, SLOT = "block", "slot"
BROKEN = Counter(
    "content_broken_total", "Times a block or slot was left out because it cannot be read or selected", ["kind", "key"]
)
log = get_logger("content")
typed = Once(lambda document: block_of(document.key, document.body))


@dataclass(frozen=True, slots=True)
class Published:
    """One version of everything published."""

    version: int
    slots: dict[str, Slot]
    changes: list[dict[str, Any]]
    told: set[tuple[str, str]] = field(default_factory=set)

    def select(self, slots: Sequence[Slot], visitor: Visitor) -> dict[str, Any]:
        """What each slot shows; one that is broken is left out."""
        found = {}
        for slot in slots:
            try:
                found[slot.key] = select(slot, visitor, self.report)
            except Exception as error:
                self.report(SLOT, slot.key, error)
        return found

    def explain(self, slots: Sequence[Slot], visitor: Visitor, websites: Collection[str]) -> dict[str, Any]:
        """Per slot, why each block is refused; who asks for some websites alone is told of no others' slots, as of none."""
        shown = (slot for slot in slots if not are_others(slot, websites))
        return {slot.key: explain(slot, visitor, self.report, websites) for slot in shown}

    def report(self, kind: str, key: str, error: Exception) -> None:
        """Counted every time, told once per release: a busy shop must not drown in it."""
        BROKEN.labels(kind, key).inc()
        if (kind, key) not in self.told:
            self.told.add((kind, key))
            log.error("content_broken", kind=kind, key=key, error=type(error).__name__)


def build(version: int, documents: Sequence[Document], changes: list[dict[str, Any]]) -> Published:
    """Everything published, each slot with its live blocks."""
    made = Published(version, {}, changes)
    made.slots.update(filled(documents, made.report))
    return made


def filled(documents: Sequence[Document], report: Report) -> dict[str, Slot]:
    """The slots with the live blocks that name them; one that this version of the code cannot read stops no other."""
    blocks, unreadable = defaultdict[str, list[Block]](list), defaultdict[str, list[str]](list)
    for document in documents:
        if document.kind == BLOCK and is_live(document):
            named = set(places(document.body))
            try:
                block = typed(document)
                for key in named:
                    blocks[key].append(block)
            except Exception as error:
                for key in named:
                    unreadable[key].append(document.key)
                report(BLOCK, document.key, error)
    slots: dict[str, Slot] = {}
    for document in documents:
        if document.kind == SLOT:
            key = document.key
            try:
                slots[key] = slot_of(key, document.body, blocks[key], unreadable[key])
            except Exception as error:
                report(SLOT, key, error)
    return slots


def is_live(document: Document) -> bool:
    """Whether a stored block is switched on."""
    return isinstance(document.body, dict) and document.body.get("status") == "live"


def places(body: Any) -> list[str]:
    """The slots a stored block, readable or not, names."""
    named = body.get("slots") if isinstance(body, dict) else None
    return [key for key in named if isinstance(key, str)] if isinstance(named, list) else []


def named_segments(body: Any) -> set[str]:
    """The segments a stored block, readable or not, names."""
    audience = body.get("audience") if isinstance(body, dict) else None
    lists = [audience.get(name) for name in ("any_of", "all_of", "none_of")] if isinstance(audience, dict) else []
    return {key for keys in lists if isinstance(keys, list) for key in keys if isinstance(key, str)}
