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
    """By key."""

    blocks: list[StoredBlock]


class Slots(TypedDict):
    """By key."""

    slots: list[StoredSlot]
