"""Made-up visitors for whom every block and slot is selected before it is saved. What raises here would in a shop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from content_svc.domain.read import block_of, slot_of
from content_svc.domain.select import Block, Report, Slot, Visitor, boundaries, explain, relevant, select, tags_of

NOW = 1_800_000_000_000


def visitors(slot: Slot) -> Iterator[Visitor]:
    """Of every locale (and a region of it), in and out of every audience, before, at and after every bound."""
    names = {"*", "xx-XX", *slot.default, *(name for b in slot.blocks for name in b.content)}
    locales = sorted(names | {f"{name.split('-')[0]}-AT" for name in names if name != "*"})
    instants = sorted({NOW, *(at + step for at in boundaries(slot.blocks) for step in (-1, 0, 1))})
    members = [b.any_of | b.all_of for b in slot.blocks]
    segments = (frozenset[str](), relevant(slot.blocks), *members)
    websites = {"main", *(min(some) for some in (slot.websites, *(b.websites for b in slot.blocks)) if some)}
    groups = {"guest", *(group for b in slot.blocks for group in b.groups)}
    for website, group, inside, at_ms in product(sorted(websites), sorted(groups), segments, instants):
        yield Visitor(website, inside, group, "*", at_ms)
    for website, inside, locale, at_ms in product(sorted(websites), (frozenset[str](), *members), locales, instants):
        yield Visitor(website, inside, min(groups - {"guest"}, default="guest"), locale, at_ms)


def _fail(kind: str, key: str, error: Exception) -> None:
    raise error


def run(slot: Slot, report: Report = _fail) -> None:
    """Select in a slot, and explain, for every made-up visitor. Raises what a selection raises."""
    for visitor in visitors(slot):
        select(slot, visitor, report)
        explain(slot, visitor, report)
    tags_of([slot])


def prove_block(key: str, body: Mapping[str, Any]) -> None:
    """Read a block and show it in a slot of its own. Raises whatever reading and selecting raise."""
    block: Block = block_of(key, body)
    run(Slot("probe", frozenset(), 50, "all", {"*": {}}, (block,)))


def prove_slot(key: str, body: Mapping[str, Any]) -> None:
    """Read a slot and show its default. Raises whatever reading and selecting raise."""
    run(slot_of(key, body, ()))
