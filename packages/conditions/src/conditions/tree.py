"""The tree: groups of children that must all, or any, turn out as expected, and leaves of a vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

Fail = Callable[[str, str, str], None]
Answer = Callable[[Any, int], bool]


class LeafType:
    """A kind of condition a vocabulary offers. Subclasses say how to read, test and explain it.

    `params` is whatever `parse` returns: hashable, JSON-able through `json`. `facts` is the vocabulary's own. Instants
    are epoch milliseconds. A `context` leaf can only be answered while a request is; `temporal` ones may change
    their answer by time alone; `chained` ones read what was decided before them, and are never temporal. Types of one
    key that differ in their binding differ in `scope`.
    """

    key: str = ""
    context = False
    temporal = False
    chained = False
    scope = ""

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """Checked parameters, or None after `fail(pointer, code, detail)`; pointers are relative to the leaf."""
        raise NotImplementedError

    def json(self, params: Any) -> dict[str, Any]:
        """The storage form that `parse` reads back."""
        raise NotImplementedError

    def test(self, params: Any, facts: Any, now: int) -> bool:
        """The answer."""
        raise NotImplementedError

    def bind(self, params: Any) -> Answer:
        """`test` with the parameters given: what depends on them alone may be worked out here, once."""
        return partial(self.test, params)

    def parts(self, params: Any) -> Collection[str] | None:
        """Names of the parts of the facts the answer is made from; None: it must be asked every time."""
        return None

    def change(self, params: Any, facts: Any, now: int) -> int | None:
        """The next instant after `now` at which the answer flips if nothing else happens."""
        return None

    def seen(self, params: Any, facts: Any, now: int) -> Any:
        """What the answer was made from, for explain."""
        return None


@dataclass(frozen=True, slots=True)
class Leaf:
    """One condition. `answer`: its test, bound to the parameters."""

    type: LeafType
    params: Any
    answer: Answer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answer", self.type.bind(self.params))


@dataclass(frozen=True, slots=True)
class Group:
    """`every`: all children must be `expect`; else any of them."""

    every: bool
    expect: bool
    children: tuple[Node, ...]


Node: TypeAlias = "Group | Leaf"


class Vocabulary:
    """The leaf types that may stand in a tree, by the key that names them."""

    def __init__(self, types: Sequence[LeafType]) -> None:
        self.types = {t.key: t for t in types}


def leaves(node: Node) -> Iterator[Leaf]:
    """Every leaf, in order."""
    if isinstance(node, Leaf):
        yield node
    else:
        for child in node.children:
            yield from leaves(child)


def to_json(node: Node) -> dict[str, Any]:
    """The storage form."""
    if isinstance(node, Leaf):
        return node.type.json(node.params)
    body: dict[str, Any] = {"all" if node.every else "any": [to_json(c) for c in node.children]}
    return body if node.expect else {**body, "value": False}
