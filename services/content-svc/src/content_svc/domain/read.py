"""Typed blocks and slots of stored bodies. Whatever a reader meets in one that this version cannot read is raised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from content_svc.domain.select import Block, Slot, order


def block_of(key: str, body: Mapping[str, Any]) -> Block:
    """The typed block of a checked body."""
    audience, content = body["audience"], _content(body["content"])
    return Block(
        key=key,
        websites=frozenset(_texts(body["websites"])),
        slots=tuple(_texts(body["slots"])),
        any_of=frozenset(_texts(audience["any_of"])),
        all_of=frozenset(_texts(audience["all_of"])),
        none_of=frozenset(_texts(audience["none_of"])),
        groups=frozenset(_texts(audience["groups"])),
        priority=_whole(body["priority"]),
        starts_at=None if body["starts_at"] is None else _whole(body["starts_at"]),
        ends_at=None if body["ends_at"] is None else _whole(body["ends_at"]),
        content=content,
        largest=max((len(msgspec.json.encode(one)) for one in content.values()), default=0),
    )


def slot_of(key: str, body: Mapping[str, Any], blocks: Sequence[Block], unreadable: Sequence[str] = ()) -> Slot:
    """The typed slot of a checked body, with the blocks that name it."""
    if body["display"] not in ("all", "first"):
        raise ValueError("unknown display")
    return Slot(
        key=key,
        websites=frozenset(_texts(body["websites"])),
        capacity=_whole(body["capacity"]),
        display=body["display"],
        default=_content(body["default"]),
        blocks=order(blocks),
        unreadable=tuple(unreadable),
    )


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("not a list of texts")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value


def _content(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(one, dict) and one.get("blocks") for one in value.values()):
        raise TypeError("not content by locale")
    return value
