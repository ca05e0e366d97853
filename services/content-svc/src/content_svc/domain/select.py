"""Which blocks a visitor sees in a slot: a pure selection. An audience that cannot be evaluated is nobody."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_TAGS = 50
BROKEN = "broken"
Report = Callable[[str, str, Exception], None]


@dataclass(frozen=True, slots=True)
class Block:
    """A dynamic block. Instants are epoch ms; `content` is by locale, `*` is what others inherit; `largest`: the bytes of its
    largest locale, encoded.
    """

    key: str
    websites: frozenset[str]
    slots: tuple[str, ...]
    any_of: frozenset[str]
    all_of: frozenset[str]
    none_of: frozenset[str]
    groups: frozenset[str]
    priority: int
    starts_at: int | None
    ends_at: int | None
    content: Mapping[str, Any]
    largest: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A place on a page. `default` is what a visitor in no audience gets; `display` is all, or first (match).

    `unreadable`: keys of the blocks left out because this version of the code cannot read them.
    """

    key: str
    websites: frozenset[str]
    capacity: int
    display: str
    default: Mapping[str, Any]
    blocks: tuple[Block, ...]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whom to select for: the segments (keys) and the group, on a website, in a locale, at an instant (epoch ms).

    `killed`: blocks (keys) that nobody is shown, whatever is published. `unknown`: segments of which nobody can say whether they
    are in: who must not be in one is not known to be out.
    """

    website: str
    segments: frozenset[str]
    group: str
    locale: str
    at_ms: int
    killed: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


def localized(content: Mapping[str, Any], locale: str) -> Any:
    """Content for a locale: de-AT, else de, else the inherited `*`."""
    for name in (locale, locale.split("-")[0], "*"):
        if name in content:
            return content[name]
    return None


def refusal(block: Block, visitor: Visitor) -> str | None:
    """Why a block is not for a visitor, as a slug; None when it is."""
    tests = (
        ("killed", block.key in visitor.killed),
        ("other-website", bool(block.websites) and visitor.website not in block.websites),
        ("not-started", block.starts_at is not None and visitor.at_ms < block.starts_at),
        ("ended", block.ends_at is not None and visitor.at_ms >= block.ends_at),
        ("not-in-segment", bool(block.any_of) and not block.any_of & visitor.segments),
        ("not-in-segment", not block.all_of <= visitor.segments),
        ("in-excluded-segment", bool(block.none_of & visitor.segments)),
        ("segment-unknown", bool(block.none_of & visitor.unknown)),
        ("other-group", bool(block.groups) and visitor.group not in block.groups),
        ("no-content", localized(block.content, visitor.locale) is None),
    )
    return next((slug for slug, fails in tests if fails), None)


def is_here(slot: Slot, visitor: Visitor) -> bool:
    """Whether the website has the slot."""
    return not slot.websites or visitor.website in slot.websites


def judged(slot: Slot, visitor: Visitor, report: Report) -> list[tuple[Block, str | None, Any]]:
    """Per block of a slot, strongest first: why it is refused, or None with the content in the visitor's locale.

    A block that raises is refused alone, as `broken`, and `report` is told.
    """
    found: list[tuple[Block, str | None, Any]] = []
    for block in slot.blocks:
        try:
            reason = refusal(block, visitor) if is_here(slot, visitor) else "slot-of-other-website"
            found.append((block, reason, None if reason else localized(block.content, visitor.locale)))
        except Exception as error:
            report("block", block.key, error)
            found.append((block, BROKEN, None))
    return found


def shown_at_once(slot: Slot) -> int:
    """How many blocks a slot shows at most."""
    return 1 if slot.display == "first" else slot.capacity


def select(slot: Slot, visitor: Visitor, report: Report) -> dict[str, Any]:
    """The blocks of a slot for a visitor, strongest first; its default content when there is none, on a website that has it."""
    if not is_here(slot, visitor):
        return {"fallback": True, "blocks": []}
    found = [(b, content) for b, reason, content in judged(slot, visitor, report) if reason is None]
    found = found[: shown_at_once(slot)]
    if not found:
        return {
            "fallback": True,
            "blocks": [{"key": f"{slot.key}:default", "content": localized(slot.default, visitor.locale)}],
        }
    return {"fallback": False, "blocks": [{"key": b.key, "content": content} for b, content in found]}


def are_others(found: Block | Slot, websites: Collection[str]) -> bool:
    """Whether something is of other websites alone than these; without any, nothing is."""
    return bool(websites and found.websites) and found.websites.isdisjoint(websites)


def explain(slot: Slot, visitor: Visitor, report: Report, websites: Collection[str] = ()) -> list[dict[str, Any]]:
    """Per block of a slot: the rule that failed, `slot-full` behind as many as it shows, or None; unreadable ones last.

    Who asks for some `websites` alone is told of no others', nor of what cannot be read, for nobody knows whose that is.
    """
    named, room = [], shown_at_once(slot)
    for block, reason, _ in judged(slot, visitor, report):
        if not are_others(block, websites):
            named.append({"block": block.key, "refused": reason or (None if room > 0 else "slot-full")})
        room -= reason is None
    return named + [{"block": key, "refused": BROKEN} for key in slot.unreadable if not websites]


def boundaries(blocks: Iterable[Block]) -> list[int]:
    """Every instant at which the schedule of blocks changes something."""
    return sorted({at for b in blocks for at in (b.starts_at, b.ends_at) if at is not None})


def audiences(slot: Slot) -> list[dict[str, Any]]:
    """What the answers of a slot depend on, for each set of websites that blocks are of: no website depends on others' blocks."""
    found: dict[frozenset[str], list[Block]] = {}
    for block in slot.blocks:
        found.setdefault(block.websites, []).append(block)
    return [
        {
            "websites": sorted(websites),
            "segments": sorted(relevant(blocks)),
            "groups": sorted({group for b in blocks for group in b.groups}),
            "boundaries": boundaries(blocks),
        }
        for websites, blocks in found.items()
    ]


def relevant(blocks: Iterable[Block]) -> frozenset[str]:
    """Segments that can change which of these blocks are shown: all that cached answers vary by."""
    return frozenset(key for b in blocks for key in b.any_of | b.all_of | b.none_of)


def tags_of(slots: Iterable[Slot]) -> list[str]:
    """Purge tags of an answer: its slots, and its blocks as long as they are not too many (then the slots stand for them)."""
    slots = list(slots)
    tags = ["content", *(f"slot:{s.key}" for s in slots)]
    blocks = sorted({f"block:{b.key}" for s in slots for b in s.blocks})
    return (tags + blocks if len(tags) + len(blocks) <= MOST_TAGS else tags)[:MOST_TAGS]


def order(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Strongest first: lower priority, then key."""
    return tuple(sorted(blocks, key=lambda b: (b.priority, b.key)))
