"""A set of definitions, checked and compiled once: who is in what, when that changes by itself, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from conditions import (
    Leaf,
    Node,
    Program,
    Reading,
    compile_set,
    explain,
    to_json,
)  # fmt: skip
from conditions.context import Atom

from segment_svc.domain import profile as people
from segment_svc.domain.definition import Definition, ordered
from segment_svc.domain.facts import Facts
from segment_svc.domain.part import UTC, Part
from segment_svc.domain.profile import Profile

MOST_EVALUATIONS, MOST_HINTS = 32, 5


@dataclass(slots=True)
class Timeline:
    """`bits` now, `flips` [(epoch ms, bits)...] to come, complete before `next_at` (None: for good), which is at the latest
    when an event dated ahead falls due. `reading` is what the bits now were decided from.
    """

    bits: int
    flips: list[tuple[int, int]]
    next_at: int | None
    reading: Reading

    def holds(self, now: int, due: int | None) -> bool:
        """Whether what was to come still is, when the next event dated ahead falls due at `due`."""
        nearest = self.flips[0][0] if self.flips else self.next_at
        return (nearest is None or nearest > now) and (
            due is None or (self.next_at is not None and self.next_at <= due)
        )


class RuleRaised(Exception):
    """Rules that cannot be evaluated: key -> the kind of error. The others are as good as before.

    `versions`: key -> the version that was tried; one that is not named is whichever serves.
    """

    def __init__(self, causes: Mapping[str, str], versions: Mapping[str, int] = MappingProxyType({})) -> None:
        super().__init__(causes)
        self.causes, self.versions = causes, versions


@dataclass(slots=True)
class RuleSet:
    """Compiled definitions. `residuals`: per request-dependent segment, its tree over atoms and context. `parts`: by id and
    version of their definitions."""

    zone: ZoneInfo
    trees: dict[str, Node]
    bits: dict[str, int]
    residuals: dict[str, Any]
    decide: Program
    atoms: list[tuple[int, Node]] = field(default_factory=list)
    owners: dict[int, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    parts: dict[tuple[int, int], Part] = field(default_factory=dict)
    blank: dict[str, Timeline] = field(default_factory=dict)

    @classmethod
    def compile(cls, definitions: Sequence[Definition], zone: ZoneInfo = UTC, before: RuleSet | None = None) -> RuleSet:
        """Compile checked definitions; each needs as many atoms as atoms_needed says. What is as it was `before` is not read
        again: that is most of the work."""
        known = before.parts if before is not None and before.zone == zone else {}
        parts: dict[tuple[int, int], Part] = {}
        bits: dict[str, int] = {}
        trees, residuals = {}, {}
        atoms: list[tuple[int, Node]] = []
        for definition in ordered(definitions):
            key, name = definition.key, (definition.id, definition.version)
            part = known.get(name)
            if part is None or not part.still(definition, bits):
                part = Part.read(definition, zone, bits)
            parts[name], trees[key] = part, part.tree
            atoms += part.atoms
            if isinstance(part.rest, Leaf) and isinstance(part.rest.type, Atom):
                bits[key] = part.rest.params
            else:
                residuals[key] = to_json(part.rest)
        owners = {atom: d.key for d in definitions for atom in d.atoms}
        versions = {d.key: d.version for d in definitions}
        same = before is not None and before.atoms == atoms
        decide, blank = (before.decide, before.blank) if before is not None and same else (compile_set(atoms), {})
        return cls(zone, trees, bits, residuals, decide, atoms, owners, versions, parts, blank)

    def is_durable(self, key: str) -> bool:
        """Whether membership can be listed: nothing of it depends on the request."""
        return key in self.bits

    def empty_bits(self, kind: str) -> int:
        """The bits of a visitor, or of a customer, never seen before."""
        return self._blank(self.decide, kind).bits

    def timeline(
        self, profile: Profile, now: int, *, horizon_ms: int, most: int = 8, key: str = "", known: Timeline | None = None,
        touched: Iterable[str] = (),
    ) -> Timeline:  # fmt: skip
        """Bits now, and the flips of the next `horizon_ms` as far as nothing else happens; leaves `profile` as it is.

        `known` is the profile's before the events of the types `touched` were folded in. Where they change no answer,
        what comes is what was known to come. Raises RuleRaised when a rule cannot be evaluated for this person.
        """
        try:
            return self._timeline(
                self.decide, profile, now, horizon_ms=horizon_ms, most=most, key=key, known=known, touched=touched
            )
        except Exception:
            self._blame(profile, now, horizon_ms=horizon_ms, most=most, key=key)
            raise

    def _blame(self, profile: Profile, now: int, **more: Any) -> None:
        """Raise RuleRaised for the rules that cannot be evaluated by themselves.

        If each one can, or none, or the person alone raises, the trouble is not theirs.
        """
        causes = {}
        try:
            people.read_whole(profile)
            self._timeline(compile_set([]), profile, now, **more)
        except Exception:
            return
        for key, program in self.alone():
            try:
                self._timeline(program, profile, now, **more)
            except Exception as error:
                causes[key] = type(error).__name__
        if causes and (len(causes) < len(self.atoms) or len(self.atoms) == 1):
            raise RuleRaised(causes, self.versions)

    def alone(self) -> Iterator[tuple[str, Program]]:
        """(key, program) of every rule by itself."""
        return ((self.owners[bit], compile_set([(bit, node)])) for bit, node in self.atoms)

    def _timeline(
        self, program: Program, profile: Profile, now: int, *, horizon_ms: int, most: int, key: str,
        known: Timeline | None = None, touched: Iterable[str] = (),
    ) -> Timeline:  # fmt: skip
        facts = Facts(profile, key)
        if known is None or known.reading.program is not program:
            known, touched = self._blank(program, profile.kind), profile.log
        due = profile.pending[0].at if profile.pending else None
        first = reading = program.renew(known.reading, facts, now, touched)
        # What was to come still comes, unless it is here, or made of what is new.
        if reading.alike(known.reading) and not program.moves(reading, touched) and known.holds(now, due):
            return Timeline(known.bits, known.flips, known.next_at, reading)
        bits = current = program.decide(reading, facts)
        flips: list[tuple[int, int]] = []
        end = now + horizon_ms if due is None else min(now + horizon_ms, due - 1)
        for _ in range(MOST_EVALUATIONS):
            change = reading.next_at
            if change is None or change > end or len(flips) == most:
                break
            reading = program.renew(reading, facts, change, ())
            after = program.decide(reading, facts)
            if after != current:
                flips.append((change, after))
                current = after
        return Timeline(bits, flips, _earliest(reading.next_at, due), first)

    def _blank(self, program: Program, kind: str) -> Timeline:
        """Somebody never seen: the start for every profile of which nothing is known yet."""
        found = self.blank.get(kind)
        if found is None or found.reading.program is not program:
            facts = Facts(people.empty(kind))
            reading = program.read(facts, 0)
            found = self.blank[kind] = Timeline(program.decide(reading, facts), [], reading.next_at, reading)
        return found

    def explain(
        self, key: str, profile: Profile, now: int, *, who: str = "", context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Per node of the definition: what was seen, whether it holds, and when that flips by itself."""
        facts = Facts(profile, who)
        facts.bits = self.decide(Facts(profile, who), now)[0]
        facts.context = dict(context or {})
        return explain(self.trees[key], facts, now)


def _earliest(*instants: int | None) -> int | None:
    return min((at for at in instants if at is not None), default=None)
