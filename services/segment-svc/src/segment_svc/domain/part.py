"""One definition, read: its tree with the guards around it, and the durable sub-trees that are its bits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from conditions import Group, Leaf, Node, parse, split
from conditions.context import Atom

from segment_svc.domain.definition import Definition, references
from segment_svc.domain.leaves.person import Picked
from segment_svc.domain.vocabulary import GUARDS, vocabulary

READ = ("applies_to", "websites", "condition", "overrides", "atoms")  # what of a definition makes its tree
UTC = ZoneInfo("UTC")


class Part(NamedTuple):
    """One definition, read. `bits`: of the segments it refers to. `atoms`: its durable sub-trees with their bits; `rest`: what is
    left of the tree over these."""

    definition: Definition
    bits: Mapping[str, int | None]
    tree: Node
    atoms: Sequence[tuple[int, Node]]
    rest: Node

    @classmethod
    def read(cls, definition: Definition, zone: ZoneInfo, bits: Mapping[str, int]) -> Part:
        """Of a checked definition."""
        atoms: list[tuple[int, Node]] = []
        tree, numbers = _tree(definition, zone, bits), iter(definition.atoms)

        def keep(durable: Node) -> Node:
            atoms.append((next(numbers), durable))
            return Leaf(Atom(), atoms[-1][0])

        return cls(definition, _referred(definition, bits), tree, atoms, split(tree, keep))

    def still(self, definition: Definition, bits: Mapping[str, int]) -> bool:
        """Whether reading a definition would give the same."""
        alike = all(getattr(self.definition, name) == getattr(definition, name) for name in READ)
        return alike and self.bits == _referred(definition, bits)


def _referred(definition: Definition, bits: Mapping[str, int]) -> dict[str, int | None]:
    return {key: bits.get(key) for key in references(definition.condition)}


def _tree(definition: Definition, zone: ZoneInfo, bits: Mapping[str, int]) -> Node:
    """The condition with its guards: whom it applies to, and the hand-picked people."""
    node = parse(definition.condition, vocabulary(definition.websites, zone, bits))
    if definition.applies_to != "both":
        kind = "visitor" if definition.applies_to == "visitors" else "customer"
        node = Group(True, True, (Leaf(GUARDS["kind"], kind), node))
    for include in (True, False):  # whoever is picked both ways is out
        picked = Picked(tuple((key, until) for key, listed, until in definition.overrides if listed == include))
        if picked.pairs:
            leaf = Leaf(GUARDS["listed"], picked)
            node = (
                Group(False, True, (leaf, node)) if include else Group(True, True, (Group(True, False, (leaf,)), node))
            )
    return node


def atoms_needed(definition: Definition, zone: ZoneInfo) -> int:
    """How many bits a definition takes: one for each durable sub-tree."""
    found = itertools.count()
    split(_tree(definition, zone, {}), lambda _: Leaf(Atom(), next(found)))
    return next(found)
