"""From JSON to a checked tree. Every fault has a JSON pointer, a code and, for a misspelt word, the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from conditions.tree import Fail, Group, Leaf, Node, Vocabulary

MOST_DEPTH, MOST_NODES, MOST_WORD, MOST_FAULTS = 12, 500, 60, 50
GROUPS = ("all", "any", "not")


@dataclass(frozen=True, slots=True)
class Fault:
    """Where the tree is wrong, a stable code, and what would be right."""

    pointer: str
    code: str
    detail: str


class Invalid(Exception):
    """The tree cannot be used; `faults` says all that is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{f.pointer or '/'}: {f.detail}" for f in faults))
        self.faults = faults


def nearest(word: Any, known: Iterable[str]) -> str:
    """`; did you mean x?`, or nothing when no known word is near, or it is no word."""
    if not isinstance(word, str):
        return ""
    close = difflib.get_close_matches(word[:MOST_WORD], list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def shown(value: Any) -> str:
    """A value in a message: a text in quotes, cut; of anything else what it is."""
    if isinstance(value, str):
        return repr(value[:MOST_WORD])
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "nothing")


def step(name: str) -> str:
    """A name as one step of a JSON pointer, cut."""
    safe = name[:MOST_WORD].encode(errors="backslashreplace").decode()
    return "/" + safe.replace("~", "~0").replace("/", "~1")


def only(raw: Mapping[str, Any], known: Sequence[str], fail: Fail, pointer: str = "") -> None:
    """Refuse fields nobody reads; of very many the first ones."""
    for name in islice((name for name in raw if name not in known), 10):
        fail(pointer + step(name), "unknown-field", f"{shown(name)} does not belong here{nearest(name, known)}")


class _Reader:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.faults: list[Fault] = []
        self.nodes = 0

    def fail(self, pointer: str, code: str, detail: str) -> None:
        self.faults.append(Fault(pointer, code, detail))

    def node(self, raw: Any, at: str, depth: int) -> Node | None:
        self.nodes += 1
        if len(self.faults) >= MOST_FAULTS:
            return None
        if depth > MOST_DEPTH or self.nodes > MOST_NODES:
            if self.nodes <= MOST_NODES + 1:
                self.fail(at, "too-large", f"at most {MOST_DEPTH} levels and {MOST_NODES} conditions")
            return None
        if not isinstance(raw, Mapping):
            self.fail(at, "not-a-condition", "a condition is a JSON object")
            return None
        named = [key for key in (*GROUPS, *self.vocabulary.types) if key in raw]
        if len(named) != 1:
            self._unnamed(raw, named, at)
            return None
        return self.group(raw, named[0], at, depth) if named[0] in GROUPS else self.leaf(raw, named[0], at)

    def _unnamed(self, raw: Mapping[str, Any], named: list[str], at: str) -> None:
        if named:
            self.fail(at, "ambiguous", f"{' and '.join(named)} cannot stand in one condition")
        else:
            word = str(next(iter(raw), ""))
            hint = nearest(word, [*GROUPS, *self.vocabulary.types])
            self.fail(at, "unknown-condition", f"{shown(word)} is not a condition{hint}")

    def group(self, raw: Mapping[str, Any], key: str, at: str, depth: int) -> Node | None:
        only(raw, (key,) if key == "not" else (key, "value"), lambda where, *what: self.fail(at + where, *what))
        if key == "not":
            child = self.node(raw[key], f"{at}/not", depth + 1)
            return Group(True, False, (child,)) if child is not None else None
        expect, items = raw.get("value", True), raw[key]
        if not isinstance(expect, bool):
            self.fail(f"{at}/value", "wrong-type", "value is true or false")
        if not isinstance(items, list) or not items:
            self.fail(f"{at}/{key}", "empty", f"{key} needs at least one condition: an empty one would match everyone")
            return None
        children = [self.node(item, f"{at}/{key}/{i}", depth + 1) for i, item in enumerate(items)]
        if any(c is None for c in children):
            return None
        return Group(key == "all", bool(expect), tuple(c for c in children if c is not None))

    def leaf(self, raw: Mapping[str, Any], key: str, at: str) -> Node | None:
        leaf_type = self.vocabulary.types[key]
        before = len(self.faults)
        params = leaf_type.parse(raw, lambda pointer, code, detail: self.fail(at + pointer, code, detail))
        return Leaf(leaf_type, params) if len(self.faults) == before else None


def parse(raw: Any, vocabulary: Vocabulary) -> Node:
    """A checked tree. Raises Invalid with the faults found; after MOST_FAULTS the rest is not looked at."""
    reader = _Reader(vocabulary)
    node = reader.node(raw, "", 1)
    if node is None or reader.faults:
        raise Invalid(reader.faults)
    return node
