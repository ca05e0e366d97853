"""What nobody is shown or given, whatever is published: a few names, copied by every gateway and applied while merging."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

KINDS = ("block", "slot", "rule")
KEY = re.compile(r"[a-z][a-z0-9.-]{0,62}")
EMPTY: dict[str, Any] = {"fallback": True, "blocks": []}
Kills = frozenset[str]  # of kind:key
Name = Annotated[str, Meta(pattern=rf"^({'|'.join(KINDS)}):{KEY.pattern}\Z")]
Word = Annotated[str, Meta(pattern=r"^[0-9A-Za-z]{0,64}\Z")]
Whole = Annotated[int, Meta(ge=0, lt=10**15)]


class Kill(msgspec.Struct, frozen=True):
    """By whom, and since when (epoch ms), as far as that can be read; `owed`: as which role its owner is still to be asked to
    switch it off."""

    by: Annotated[str, Meta(pattern=r"^[ -~]{0,200}\Z")] = ""
    at_ms: Whole = 0
    owed: Annotated[str, Meta(pattern=r"^[a-z]{0,20}\Z")] = ""


class Copy(msgspec.Struct, frozen=True):
    """The list as somebody has it: which list it is, whoever began it, the number of its last change, and which one that was."""

    list: Word
    number: Whole
    last: Word
    names: dict[Name, Kill]

    @property
    def mark(self) -> tuple[str, int, str]:
        """What no other state of a list has."""
        return self.list, self.number, self.last

    def has_more_than(self, there: Copy) -> bool:
        """Whether something of it is not there: another list, an older state of this one, or one that went on from an older."""
        if not self.list:
            return False
        return (
            there.list != self.list
            or there.number < self.number
            or (there.number == self.number and there.last != self.last)
        )


NONE = Copy("", 0, "", {})


def kill_of(said: bytes) -> Kill:
    """What the list says of a name."""
    try:
        return msgspec.json.decode(said, type=Kill)
    except ValueError:  # msgspec's, or of a text that is no UTF-8
        return Kill()


def name_of(kind: str, key: str) -> str | None:
    """How a kill is written; None for what cannot be one."""
    return f"{kind}:{key}" if kind in KINDS and KEY.fullmatch(key) else None


def keys(kills: Kills, kind: str) -> list[str]:
    """The killed ones of a kind."""
    return sorted(name.partition(":")[2] for name in kills if name.startswith(f"{kind}:"))


def of_content(said: Mapping[str, Any], kills: Kills) -> Mapping[str, Any]:
    """What content-svc says, without what is killed: it may be slow to know, or not know at all."""
    if not kills:
        return said
    slots = {key: kept for key, slot in said["slots"].items() if (kept := _slot(slot, kills)) is not None}
    return {**said, "slots": slots | dict.fromkeys(keys(kills, "slot"), EMPTY)}


def _slot(slot: Mapping[str, Any], kills: Kills) -> Mapping[str, Any] | None:
    """None when nothing is left of it: then it shows its default."""
    blocks = [block for block in slot["blocks"] if f"block:{block['key']}" not in kills]
    return {**slot, "blocks": blocks} if blocks or not slot["blocks"] else None


def of_promotions(said: Mapping[str, Any], kills: Kills) -> Mapping[str, Any]:
    """What promo-svc says, without the messages of killed rules."""
    return {**said, "messages": [m for m in said["messages"] if f"rule:{m['rule']}" not in kills]} if kills else said


def spoils(cart: Mapping[str, Any], kills: Kills) -> bool:
    """Whether a killed rule has its hand in an evaluated cart, which cannot be undone."""
    return any(f"rule:{found['rule']}" in kills for found in (*cart["applied"], *cart["hints"]))


def tags(name: str, content: Mapping[str, Any]) -> list[str]:
    """The purge tags of all that may show what is killed; `content` is what content-svc says of its slots."""
    kind, _, key = name.partition(":")
    if kind != "block":
        return [f"slot:{key}" if kind == "slot" else "promo"]
    # An answer with very many blocks is tagged by its slots only.
    few = {slot: found["tags"] for slot, found in content["slots"].items()}
    return [name, *sorted(f"slot:{s}" for s, found in few.items() if name in found or not _has_blocks(found))]


def _has_blocks(found: list[str]) -> bool:
    return any(tag.startswith("block:") for tag in found)
