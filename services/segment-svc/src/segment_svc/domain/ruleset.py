"""A set of definitions, checked and compiled once: who is in what, when that changes by itself, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from conditions import Fault, Group, Invalid, Leaf, Node, compile_set, explain, leaves, parse, split, to_json
from conditions.context import Atom

from segment_svc.domain import profile as people
from segment_svc.domain.facts import Facts
from segment_svc.domain.profile import Profile
from segment_svc.domain.vocabulary import GUARDS, vocabulary

MOST_EVALUATIONS = 32
UTC = ZoneInfo("UTC")


class Definition(msgspec.Struct, frozen=True):
    """One segment. `overrides`: (profile key, include, until in epoch ms or None). `atoms`: the bits that are its."""

    id: int
    key: str
    version: int
    applies_to: str
    websites: tuple[str, ...]
    condition: Any
    overrides: tuple[tuple[str, bool, int | None], ...]
    atoms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """`bits` now, `flips` [(epoch ms, bits)...] to come, complete up to `next_at` (None: for good)."""

    bits: int
    flips: list[tuple[int, int]]
    next_at: int | None


@dataclass(slots=True)
class RuleSet:
    """Compiled definitions. `residuals`: per request-dependent segment, its tree over atoms and context."""

    zone: ZoneInfo
    trees: dict[str, Node]
    bits: dict[str, int]
    residuals: dict[str, Any]
    decide: Callable[[Any, int], tuple[int, int | None]]
    atoms: list[tuple[int, Node]] = field(default_factory=list)

    @classmethod
    def compile(cls, definitions: Sequence[Definition], zone: ZoneInfo = UTC) -> RuleSet:
        """Compile checked definitions; each needs as many atoms as plan_atoms gave it."""
        bits: dict[str, int] = {}
        trees, residuals, atoms = {}, {}, []
        for definition in _ordered(definitions):
            tree = trees[definition.key] = _tree(definition, zone, bits)
            own = iter(definition.atoms)

            def keep(durable: Node, own: Iterator[int] = own) -> Node:
                atoms.append((next(own), durable))
                return Leaf(Atom(), atoms[-1][0])

            rest = split(tree, keep)
            if isinstance(rest, Leaf) and isinstance(rest.type, Atom):
                bits[definition.key] = rest.params
            else:
                residuals[definition.key] = to_json(rest)
        return cls(zone, trees, bits, residuals, compile_set(atoms), atoms)

    @staticmethod
    def check(definitions: Sequence[Definition], key: str, zone: ZoneInfo = UTC) -> list[Fault]:
        """What is wrong with the definition `key` among the others; nothing when it can be saved."""
        by_key = {d.key: d for d in definitions}
        try:
            tree = parse(by_key[key].condition, vocabulary(by_key[key].websites, zone, {}))
        except Invalid as error:
            return error.faults
        known: dict[str, bool] = {}
        for name, other in by_key.items():
            try:
                parsed = parse(other.condition, vocabulary(other.websites, zone, {}))
                known[name] = any(leaf.type.context for leaf in leaves(parsed))
            except Invalid:
                continue
        faults = []
        for name in sorted(references(by_key[key].condition)):
            if name not in known:
                faults.append(Fault("", "unknown-segment", f"there is no active segment {name!r}"))
            elif known[name]:
                faults.append(Fault("", "needs-request", f"{name!r} depends on the request and cannot be referred to"))
        if any(leaf.type.key == "segment" for leaf in leaves(tree)) and _reaches(by_key, key):
            faults.append(Fault("", "cycle", "the segment would depend on itself"))
        return faults

    def is_durable(self, key: str) -> bool:
        """Whether membership can be listed: nothing of it depends on the request."""
        return key in self.bits

    @property
    def empty_bits(self) -> int:
        """The bits of somebody never seen before."""
        return self.decide(Facts(people.empty("visitor")), 0)[0]

    def timeline(self, profile: Profile, now: int, *, horizon_ms: int, most: int = 8, key: str = "") -> Timeline:
        """Bits now, and the flips of the next `horizon_ms` as far as nothing else happens; leaves `profile` as it is."""
        facts = Facts(profile, key)
        bits, change = self._at(facts, now)
        flips: list[tuple[int, int]] = []
        current, end = bits, now + horizon_ms
        for _ in range(MOST_EVALUATIONS):
            if change is None or change > end or len(flips) == most:
                break
            at = change
            facts = _advanced(facts, at)
            after, change = self._at(facts, at)
            if after != current:
                flips.append((at, after))
                current = after
        return Timeline(bits, flips, change)

    def _at(self, facts: Facts, now: int) -> tuple[int, int | None]:
        bits, change = self.decide(facts, now)
        pending = facts.profile.pending
        if pending and (change is None or pending[0].at < change):
            change = pending[0].at
        return bits, change

    def explain(
        self, key: str, profile: Profile, now: int, *, who: str = "", context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Per node of the definition: what was seen, whether it holds, and when that flips by itself."""
        facts = Facts(profile, who)
        facts.bits = self.decide(Facts(profile, who), now)[0]
        facts.context = dict(context or {})
        return explain(self.trees[key], facts, now)


def _advanced(facts: Facts, now: int) -> Facts:
    pending = facts.profile.pending
    if not pending or pending[0].at > now:
        return facts
    copy = people.decode(people.encode(facts.profile))
    people.advance(copy, now)
    return Facts(copy, facts.key)


def _tree(definition: Definition, zone: ZoneInfo, bits: Mapping[str, int]) -> Node:
    """The condition with its guards: whom it applies to, and the hand-picked people."""
    node = parse(definition.condition, vocabulary(definition.websites, zone, bits))
    if definition.applies_to != "both":
        kind = "visitor" if definition.applies_to == "visitors" else "customer"
        node = Group(True, True, (Leaf(GUARDS["kind"], kind), node))
    for include in (False, True):
        people_listed = tuple((key, until) for key, listed, until in definition.overrides if listed == include)
        if people_listed:
            leaf = Leaf(GUARDS["listed"], people_listed)
            node = (
                Group(False, True, (leaf, node)) if include else Group(True, True, (Group(True, False, (leaf,)), node))
            )
    return node


def plan_atoms(definition: Definition, zone: ZoneInfo, allocate: Callable[[], int]) -> tuple[int, ...]:
    """As many fresh bits as the definition has durable sub-trees."""
    atoms: list[int] = []

    def keep(_: Node) -> Node:
        atoms.append(allocate())
        return Leaf(Atom(), atoms[-1])

    split(_tree(definition, zone, {}), keep)
    return tuple(atoms)


def references(condition: Any) -> set[str]:
    """Keys of the segments a stored condition refers to."""
    if isinstance(condition, list):
        return {key for item in condition for key in references(item)}
    if not isinstance(condition, dict):
        return set()
    if "segment" in condition and isinstance(condition["segment"], dict):
        return {k for k in condition["segment"].get("keys") or [] if isinstance(k, str)}
    return {key for name in ("all", "any", "not") if name in condition for key in references(condition[name])}


def renamed(condition: Any, names: Mapping[str, str]) -> Any:
    """The condition with references to other segments renamed."""
    if isinstance(condition, list):
        return [renamed(item, names) for item in condition]
    if not isinstance(condition, dict):
        return condition
    if "segment" in condition:
        body = condition["segment"]
        return {"segment": {**body, "keys": [names.get(k, k) for k in body["keys"]]}}
    return {k: renamed(v, names) if k in ("all", "any", "not") else v for k, v in condition.items()}


def _reaches(by_key: Mapping[str, Definition], start: str) -> bool:
    todo, seen = list(references(by_key[start].condition)), set()
    while todo:
        name = todo.pop()
        if name == start:
            return True
        if name in by_key and name not in seen:
            seen.add(name)
            todo += references(by_key[name].condition)
    return False


def _ordered(definitions: Sequence[Definition]) -> list[Definition]:
    """Referred-to segments first. Raises ValueError for a cycle, which check refuses at save."""
    waiting, done = {d.key: d for d in definitions}, []
    while waiting:
        ready = [d for d in waiting.values() if not references(d.condition) & set(waiting)]
        if not ready:
            raise ValueError("segments refer to each other in a circle")
        for definition in ready:
            done.append(definition)
            del waiting[definition.key]
    return done
