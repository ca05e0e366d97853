"""A set of checked trees as one generated function: every distinct leaf is asked once, the answer is a bitset.

The source is put together from the checked tree only: names this module makes up, `and`, `or`, `not` and numbers.
Measured against the walk in the benchmarks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from conditions.tree import Leaf, Node, to_json

Decide = Callable[[Any, int], tuple[int, "int | None"]]


class _Source:
    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.scope: dict[str, Any] = {}
        self.lines: list[str] = []

    def leaf(self, leaf: Leaf) -> str:
        identity = leaf.type.key + leaf.type.scope + json.dumps(to_json(leaf), sort_keys=True, default=str)
        name = self.names.get(identity)
        if name is None:
            name = self.names[identity] = f"x{len(self.names)}"
            self.scope[f"t_{name}"], self.scope[f"p_{name}"] = leaf.type.test, leaf.params
            self.lines.append(f"    {name} = t_{name}(p_{name}, facts, now)")
            if leaf.type.temporal:
                self.scope[f"c_{name}"] = leaf.type.change
                self.lines.append(f"    at = c_{name}(p_{name}, facts, now)")
                self.lines.append("    if at is not None and (first is None or at < first): first = at")
        return name

    def expression(self, node: Node) -> str:
        if isinstance(node, Leaf):
            return self.leaf(node)
        parts = [self.expression(child) for child in node.children]
        if not node.expect:
            parts = [f"not {part}" for part in parts]
        return "(" + (" and " if node.every else " or ").join(parts) + ")"


def compile_set(rules: Sequence[tuple[int, Node]]) -> Decide:
    """A function (facts, now) -> (bits, the first instant after now at which a leaf flips, or None).

    `rules` are (bit, tree). A leaf may read bits decided before it as `facts.bits`: the set is decided in order.
    """
    source = _Source()
    body: list[str] = []
    for bit, node in rules:
        expression = source.expression(node)
        body += [*source.lines, f"    if {expression}: bits |= {1 << bit}", "    facts.bits = bits"]
        source.lines = []
    text = "\n".join(["def decide(facts, now):", "    bits, first = 0, None", *body, "    return bits, first"])
    exec(compile(text, "<conditions>", "exec"), source.scope)  # noqa: S102 - built above from checked parts only
    decide: Decide = source.scope["decide"]
    return decide
