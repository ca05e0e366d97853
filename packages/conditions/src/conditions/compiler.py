"""A set of checked trees as one program: what its leaves need to know are slots, each looked at once for the whole set.

What was seen is kept as a Reading, so that after a change of some facts, or at a later instant, only the slots concerned
are looked at again. Of a number a slot keeps between which cuts it lies, which is all an answer depends on: as long as
two readings are alike, so are their answers. The bitset of answers is decided by generated functions over the slots,
whose source is put together from the checked trees only: names this module makes up, whole numbers, `and`, `or`, `not`.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from conditions.measures import Compared, Cut, Measure, passed
from conditions.tree import Group, Leaf, Node, leaves, to_json

NEVER = 2**63
Look = Callable[[Any, int], tuple[Any, int]]
Decide = Callable[..., int]  # of (values, facts, now), and the bits decided so far, by default none
MOST_LEAVES = 500  # of one function, or a few more


@dataclass(slots=True)
class Reading:
    """The slots of a program at the instant `at`; `changes` says when each may change by itself, or NEVER."""

    program: Program
    at: int
    values: list[Any]
    changes: list[int]
    first: int = NEVER

    @property
    def next_at(self) -> int | None:
        """The first instant after `at` at which a leaf may flip, or None."""
        return None if self.first == NEVER else self.first

    def alike(self, other: Reading) -> bool:
        """Whether the answers of both are the same, and change first at the same instants; not what comes after that."""
        return self.values == other.values and self.changes == other.changes


class Program:
    """Compiled rules. Called with (facts, now) it answers the bits, and when a leaf may next flip by itself."""

    def __init__(self, slots: Sequence[tuple[Look, Collection[str] | None]], decide: Decide) -> None:
        self._looks, self._decide = [look for look, _ in slots], decide
        self._always = [i for i, (_, parts) in enumerate(slots) if parts is None]
        self._made_from: dict[str, list[int]] = {}
        for i, (_, parts) in enumerate(slots):
            for part in parts or ():
                self._made_from.setdefault(part, []).append(i)

    def __call__(self, facts: Any, now: int) -> tuple[int, int | None]:
        """See the class."""
        reading = self.read(facts, now)
        return self.decide(reading, facts), reading.next_at

    def read(self, facts: Any, now: int) -> Reading:
        """Look at every slot."""
        count = len(self._looks)
        return self._fill(Reading(self, now, [None] * count, [NEVER] * count), range(count), facts)

    def renew(self, reading: Reading, facts: Any, now: int, touched: Iterable[str]) -> Reading:
        """Look again at what the `touched` parts of the facts, or the time since `reading`, may have changed."""
        if reading.program is not self or now < reading.at:
            return self.read(facts, now)
        stale = set(self._always)
        for part in touched:
            stale.update(self._made_from.get(part, ()))
        changes = reading.changes
        if reading.first <= now:
            stale.update([i for i, at in enumerate(changes) if at <= now])
        return self._fill(Reading(self, now, reading.values.copy(), changes.copy()), stale, facts)

    def _fill(self, reading: Reading, stale: Iterable[int], facts: Any) -> Reading:
        looks, now, values, changes = self._looks, reading.at, reading.values, reading.changes
        for i in stale:
            values[i], changes[i] = looks[i](facts, now)
        reading.first = min(changes, default=NEVER)
        return reading

    def moves(self, reading: Reading, parts: Iterable[str]) -> bool:
        """Whether anything made from these parts of the facts will change by itself."""
        concerned = {*self._always, *(i for part in parts for i in self._made_from.get(part, ()))}
        return any(reading.changes[i] != NEVER for i in concerned)

    def decide(self, reading: Reading, facts: Any) -> int:
        """The bits of the rules that hold."""
        return self._decide(reading.values, facts, reading.at)


class _Slots:
    """What the leaves of a set need to know, each once: measures with the cuts of all their comparisons, and answers.

    `chained`, `used`: the leaves and slots that the expressions made so far have in them. `names`: of the leaves, by their ids.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.needs: dict[str, Measure | Leaf] = {}
        self.chained: list[Leaf] = []
        self.used: dict[int, None] = {}
        self.names: dict[int, str] = {}
        places: dict[str, set[Cut]] = {}
        for leaf in (leaf for node in nodes for leaf in leaves(node) if not leaf.type.chained):
            name, params = _identity(leaf), leaf.params
            self.names[id(leaf)] = name
            if isinstance(params, Compared):
                self.needs.setdefault(name, params.measure)
                places.setdefault(name, set()).update(params.cuts())
            else:
                self.needs.setdefault(name, leaf)
        self.cuts = {name: tuple(sorted(cuts)) for name, cuts in places.items()}
        self.numbers = {name: number for number, name in enumerate(self.needs)}

    def expression(self, node: Node) -> str:
        """Python for the tree, over v0, v1... (slots) and t0, t1... (chained leaves)."""
        if isinstance(node, Group):
            parts = [("" if node.expect else "not ") + self.expression(child) for child in node.children]
            return "(" + (" and " if node.every else " or ").join(parts) + ")"
        if node.type.chained:
            self.chained.append(node)
            return f"t{len(self.chained) - 1}(facts, now)"
        name = self.names[id(node)]
        self.used[self.numbers[name]] = None
        slot = f"v{self.numbers[name]}"
        return _comparison(slot, node.params, self.cuts[name]) if name in self.cuts else slot

    def looks(self) -> list[tuple[Look, Collection[str] | None]]:
        """How each slot is looked at, and of which parts of the facts it is made."""
        return [
            (_measured(what, self.cuts[name]), what.parts)
            if isinstance(what, Measure)
            else (_answered(what), what.type.parts(what.params))
            for name, what in self.needs.items()
        ]


def _identity(leaf: Leaf) -> str:
    if isinstance(leaf.params, Compared):
        return f"measure {leaf.params.measure.key}"
    return leaf.type.key + leaf.type.scope + json.dumps(to_json(leaf), sort_keys=True, default=str)


def _comparison(slot: str, params: Compared, cuts: Sequence[Cut]) -> str:
    """A comparison of the number in terms of how many cuts lie below it."""
    below = bisect_left(cuts, params.cuts()[0])
    test = {
        "lt": f"<= {below}", "lte": f"<= {below}", "gte": f"> {below}", "gt": f"> {below}", "eq": f"== {below + 1}",
        "ne": f"!= {below + 1}",
    }[params.op]  # fmt: skip
    return f"({params.if_missing} if {slot} is None else {slot} {test})"


def _measured(measure: Measure, cuts: Sequence[Cut]) -> Look:
    read, change = measure.read, measure.change if measure.temporal else None

    def look(facts: Any, now: int) -> tuple[int | None, int]:
        value = read(facts, now)
        if value is None:
            return None, NEVER
        at = change(facts, now, value, cuts) if change else None
        return passed(cuts, value), NEVER if at is None else at

    return look


def _answered(leaf: Leaf) -> Look:
    answer, params, change = leaf.answer, leaf.params, leaf.type.change if leaf.type.temporal else None

    def look(facts: Any, now: int) -> tuple[bool, int]:
        at = change(params, facts, now) if change else None
        return answer(facts, now), NEVER if at is None else at

    return look


def compile_set(rules: Sequence[tuple[int, Node]]) -> Program:
    """The program of rules (bit, tree). Chained leaves read the bits decided before them as `facts.bits`.

    Of many rules it is several functions, one after the other: Python compiles each in one go, and no other thread works
    meanwhile.
    """
    slots = _Slots(node for _, node in rules)
    functions = [_function(slots, some) for some in _some(rules)]
    return Program(slots.looks(), functions[0] if len(functions) == 1 else _one_by_one(functions))


def _some(rules: Sequence[tuple[int, Node]]) -> Iterator[Sequence[tuple[int, Node]]]:
    """The rules in lots of about as many leaves as one function is to have; at least one lot."""
    begin = count = 0
    for end, (_, node) in enumerate(rules):
        count += sum(1 for _ in leaves(node))
        if count >= MOST_LEAVES and end + 1 < len(rules):
            yield rules[begin : end + 1]
            begin, count = end + 1, 0
    yield rules[begin:]


def _one_by_one(functions: Sequence[Decide]) -> Decide:
    def decide(values: Sequence[Any], facts: Any, now: int, bits: int = 0) -> int:
        for function in functions:
            bits = function(values, facts, now, bits)
        return bits

    return decide


def _function(slots: _Slots, rules: Sequence[tuple[int, Node]]) -> Decide:
    slots.chained, slots.used = [], {}
    lines = []
    for bit, node in rules:
        before = len(slots.chained)
        expression = slots.expression(node)
        if len(slots.chained) > before:
            lines.append("    facts.bits = bits")
        lines.append(f"    if {expression}: bits |= {1 << bit}")
    head = ["def decide(values, facts, now, bits=0):"]
    if slots.used:
        whole = list(slots.used) == list(slots.numbers.values())
        given = "values" if whole else "".join(f"values[{number}], " for number in slots.used)
        head.append(f"    {''.join(f'v{number}, ' for number in slots.used)}= {given}")
    scope: dict[str, Any] = {f"t{n}": leaf.answer for n, leaf in enumerate(slots.chained)}
    exec(compile("\n".join([*head, *lines, "    return bits"]), "<conditions>", "exec"), scope)  # noqa: S102 - see above
    decide: Decide = scope["decide"]
    return decide
