"""What answers to merchants look like."""

from __future__ import annotations

from typing_extensions import TypedDict

from content_svc.schemas import NewDynamicBlock, NewSlot


class StoredBlock(NewDynamicBlock):
    """A dynamic block as it was saved last."""

    version: int


class StoredSlot(NewSlot):
    """A slot as it was saved last."""

    version: int


class Blocks(TypedDict):
    """A page, by key, and what to ask the next one with."""

    blocks: list[StoredBlock]
    next: str | None


class Slots(TypedDict):
    """A page, by key, and what to ask the next one with."""

    slots: list[StoredSlot]
    next: str | None
