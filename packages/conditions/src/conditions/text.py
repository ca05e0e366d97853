"""The text form: one line per condition, for git, review and explain. Reads back to the same tree.

ALL are TRUE
  attribute "tier" op "eq" value "gold"
  events {"count":{"op":"gt","value":3},"type":"product_view"}
"""

from __future__ import annotations

import json
import re
from typing import Any

from conditions.read import MOST_DEPTH, MOST_NODES, Fault, Invalid, parse
from conditions.tree import Leaf, Node, Vocabulary, to_json

HEAD = re.compile(r"^(ALL|ANY) are (TRUE|FALSE)$")
WORD = re.compile(r"\s*([a-z_]+) ")
_decode = json.JSONDecoder().raw_decode


def to_text(node: Node) -> str:
    """The tree as lines."""
    return "\n".join(_lines(node, 0)) + "\n"


def _lines(node: Node, depth: int) -> list[str]:
    pad = "  " * depth
    if isinstance(node, Leaf):
        body = to_json(node)
        dumped = (f"{k} {json.dumps(v, sort_keys=True, separators=(',', ':'))}" for k, v in body.items())
        return [pad + " ".join(dumped)]
    head = f"{'ALL' if node.every else 'ANY'} are {str(node.expect).upper()}"
    return [pad + head] + [line for child in node.children for line in _lines(child, depth + 1)]


def from_text(text: str, vocabulary: Vocabulary) -> Node:
    """The tree of a text. Raises Invalid; a fault of the text itself has the pointer `line N`."""
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise Invalid([Fault("line 1", "empty", "there is no condition")])
    if len(lines) > MOST_NODES:
        raise Invalid([Fault(f"line {lines[MOST_NODES][0]}", "too-large", f"at most {MOST_NODES} conditions")])
    raw, rest = _block(lines, 0)
    if rest:
        raise Invalid([Fault(f"line {rest[0][0]}", "outside", "this line belongs to no group")])
    return parse(raw, vocabulary)


def _block(lines: list[tuple[int, str]], depth: int) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    number, line = lines[0]
    head = HEAD.match(line.strip())
    rest = lines[1:]
    if not head:
        return _leaf(number, line.strip()), rest
    children = []
    if depth > MOST_DEPTH:
        raise Invalid([Fault(f"line {number}", "too-large", f"at most {MOST_DEPTH} levels")])
    while rest and len(rest[0][1]) - len(rest[0][1].lstrip()) > depth * 2:
        child, rest = _block(rest, depth + 1)
        children.append(child)
    raw: dict[str, Any] = {head[1].lower(): children}
    return (raw if head[2] == "TRUE" else {**raw, "value": False}), rest


def _leaf(number: int, line: str) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    at = 0
    while at < len(line):
        word = WORD.match(line, at)
        try:
            if word is None:
                raise ValueError
            raw[word[1]], at = _decode(line, word.end())
        except (ValueError, RecursionError):
            raise Invalid([Fault(f"line {number}", "unreadable", "a line is words, each with a JSON value")]) from None
    return raw
