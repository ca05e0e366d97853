"""A set of checked trees as one generated function: every measure is read once, the answer is a bitset.

The source is put together from the checked tree only: names this module makes up, comparisons, `and`, `or`, `not` and
finite numbers. Measured against the walk in the benchmarks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from conditions.measures import SYMBOLS, Compared, Cut, Measure
from conditions.tree import Leaf, Node, to_json

Decide = Callable[[Any, int], tuple[int, "int | None"]]


class _Source:
    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.scope: dict[str, Any] = {}
        self.lines: list[str] = []
        self.cuts: dict[str, set[Cut]] = {}

    def leaf(self, leaf: Leaf) -> str:
        if isinstance(leaf.params, Compared):
            return self.compared(leaf.params)
        identity = leaf.type.key + leaf.type.scope + json.dumps(to_json(leaf), sort_keys=True, default=str)
        name = self.names.get(identity)
        if name is None:
            name = self.names[identity] = f"x{len(self.names)}"
            self.scope[f"t_{name}"], self.scope[f"p_{name}"] = leaf.type.test, leaf.params
            self.lines.append(f"    {name} = t_{name}(p_{name}, facts, now)")
            if leaf.type.temporal:
                self.scope[f"c_{name}"] = leaf.type.change
                self.change(f"c_{name}(p_{name}, facts, now)")
        return name

    def compared(self, params: Compared) -> str:
        name = self.measure(params.measure)
        self.cuts[name].update(params.cuts())
        return f"({params.if_missing} if {name} is None else {name} {SYMBOLS[params.op]} {params.literal!r})"

    def measure(self, measure: Measure) -> str:
        name = self.names.get(measure.key)
        if name is None:
            name = self.names[measure.key] = f"m{len(self.names)}"
            self.cuts[name] = set()
            self.scope[f"r_{name}"] = measure.read
            self.lines.append(f"    {name} = r_{name}(facts, now)")
            if measure.temporal:
                self.scope[f"c_{name}"] = measure.change
                self.change(f"None if {name} is None else c_{name}(facts, now, {name}, k_{name})")
        return name

    def change(self, expression: str) -> None:
        self.lines.append(f"    at = {expression}")
        self.lines.append("    if at is not None and (first is None or at < first): first = at")

    def expression(self, node: Node) -> str:
        if isinstance(node, Leaf):
            return self.leaf(node)
        parts = [self.expression(child) for child in node.children]
        if not node.expect:
            parts = [f"not {part}" for part in parts]
        return "(" + (" and " if node.every else " or ").join(parts) + ")"


def compile_set(rules: Sequence[tuple[int, Node]]) -> Decide:
    """A function (facts, now) -> (bits, the first instant after now at which a leaf may flip, or None).

    `rules` are (bit, tree). A leaf may read bits decided before it as `facts.bits`: the set is decided in order.
    """
    source = _Source()
    body: list[str] = []
    for bit, node in rules:
        expression = source.expression(node)
        body += [*source.lines, f"    if {expression}: bits |= {1 << bit}", "    facts.bits = bits"]
        source.lines = []
    scope = {**source.scope, **{f"k_{name}": tuple(sorted(cuts)) for name, cuts in source.cuts.items()}}
    text = "\n".join(["def decide(facts, now):", "    bits, first = 0, None", *body, "    return bits, first"])
    exec(compile(text, "<conditions>", "exec"), scope)  # noqa: S102 - built above from checked parts only
    decide: Decide = scope["decide"]
    return decide
