"""Readings of a tree by walking it: the plain interpreter (the oracle), next change, explain, and the split by origin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conditions.tree import Group, Leaf, Node, leaves, to_json


def holds(node: Node, facts: Any, now: int) -> bool:
    """Whether the tree is true."""
    if isinstance(node, Leaf):
        return node.answer(facts, now)
    results = (holds(child, facts, now) == node.expect for child in node.children)
    return all(results) if node.every else any(results)


def next_change_at(node: Node, facts: Any, now: int) -> int | None:
    """The first instant after `now` at which a leaf flips; the tree itself may stay as it is there."""
    changes = (leaf.type.change(leaf.params, facts, now) for leaf in leaves(node) if leaf.type.temporal)
    return min((c for c in changes if c is not None), default=None)


def explain(node: Node, facts: Any, now: int) -> dict[str, Any]:
    """Per node: the condition, its result, the value seen and when it flips by itself (epoch ms or None)."""
    if isinstance(node, Leaf):
        return {
            "condition": to_json(node),
            "result": node.answer(facts, now),
            "seen": node.type.seen(node.params, facts, now),
            "flips_at": node.type.change(node.params, facts, now) if node.type.temporal else None,
        }
    children = [explain(child, facts, now) for child in node.children]
    results = [c["result"] == node.expect for c in children]
    return {
        "group": "all" if node.every else "any",
        "expect": node.expect,
        "result": all(results) if node.every else any(results),
        "children": children,
    }


def split(node: Node, keep: Callable[[Node], Node]) -> Node:
    """The tree with its largest durable sub-trees replaced by `keep(sub-tree)`; what needs a request stays."""
    if not any(leaf.type.context for leaf in leaves(node)):
        return keep(node)
    if isinstance(node, Leaf):
        return node
    durable = [c for c in node.children if not any(leaf.type.context for leaf in leaves(c))]
    rest = [split(c, keep) for c in node.children if c not in durable]
    if len(durable) == 1:
        return Group(node.every, node.expect, (keep(durable[0]), *rest))
    if durable:
        together = keep(Group(node.every, node.expect, tuple(durable)))
        # The kept group already answers for `expect`; wrap the rest so that the whole keeps its meaning.
        others = Group(node.every, node.expect, tuple(rest))
        return Group(node.every, True, (together, others))
    return Group(node.every, node.expect, tuple(rest))
