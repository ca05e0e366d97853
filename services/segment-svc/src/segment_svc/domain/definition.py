"""A segment as saved, and how segments refer to each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import msgspec
from conditions.context import SAID_BY_ANYBODY


class Definition(msgspec.Struct, frozen=True):
    """One segment. `overrides`: (profile key, include, until in epoch ms or None). `atoms`: the bits that are its.

    `epoch`: when these got their meaning; a document of an earlier one says nothing of them. `since`: the release in which it
    began to serve.
    """

    id: int
    key: str
    version: int
    applies_to: str
    websites: tuple[str, ...]
    condition: Any
    overrides: tuple[tuple[str, bool, int | None], ...]
    atoms: tuple[int, ...] = ()
    epoch: int = 0
    since: int = 0


def references(condition: Any) -> set[str]:
    """Keys of the segments a condition refers to; one that cannot be read refers to none."""
    if isinstance(condition, list):
        return {key for item in condition for key in references(item)}
    if not isinstance(condition, dict):
        return set()
    if "segment" in condition:
        keys = _keys(condition)
        return {k for k in keys if isinstance(k, str)}
    return {key for name in ("all", "any", "not") if name in condition for key in references(condition[name])}


def request_fields(condition: Any) -> frozenset[str]:
    """The fields of a request that a condition asks for; if there are any, no other segment can refer to it. One that cannot be
    read asks for none.
    """
    if isinstance(condition, list):
        return frozenset(field for item in condition for field in request_fields(item))
    if not isinstance(condition, dict):
        return frozenset()
    if "context" in condition:
        return frozenset([str(condition["context"])])
    return frozenset(f for name in ("all", "any", "not") if name in condition for f in request_fields(condition[name]))


def retyped(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a stored definition becomes another sort of thing to who relies on it: of other people, of people instead of
    requests or the other way round, or of what a page says of itself.
    """
    before, after = (request_fields(body.get("condition")) for body in (old, new))
    believed = [SAID_BY_ANYBODY.isdisjoint(fields) for fields in (before, after)]
    other_people = old.get("applies_to") != new.get("applies_to")
    return other_people or bool(before) != bool(after) or believed == [True, False]


def _keys(condition: Mapping[str, Any]) -> list[Any]:
    body = condition["segment"]
    keys = body.get("keys") if isinstance(body, dict) else None
    return keys if isinstance(keys, list) else []


def renamed(condition: Any, names: Mapping[str, str]) -> Any:
    """The condition with references to other segments renamed."""
    if isinstance(condition, list):
        return [renamed(item, names) for item in condition]
    if not isinstance(condition, dict):
        return condition
    if "segment" in condition:
        keys = [names.get(k, k) if isinstance(k, str) else k for k in _keys(condition)]
        return {"segment": {**condition["segment"], "keys": keys}} if keys else condition
    return {k: renamed(v, names) if k in ("all", "any", "not") else v for k, v in condition.items()}


def depends_on_itself(by_key: Mapping[str, Definition], start: str) -> bool:
    """Whether following the references of a definition leads back to it."""
    todo, seen = list(references(by_key[start].condition)), set()
    while todo:
        name = todo.pop()
        if name == start:
            return True
        if name in by_key and name not in seen:
            seen.add(name)
            todo += references(by_key[name].condition)
    return False


def leaving(keys: Set[str], computed: Mapping[str, Set[str]], served: Mapping[str, Set[str]]) -> set[str]:
    """Of what is being computed together (key -> what it refers to), what cannot be when `keys` are not: those, who refers to
    them, and, as they go on as they are `served`, what they refer to as that; directly or through others.
    """
    found = set(keys & computed.keys())
    while True:
        below = {key for name in found for key in served.get(name, ())} & computed.keys()
        more = found | below | {key for key, needs in computed.items() if needs & found}
        if more == found:
            return found
        found = more


def needed(definitions: Iterable[Definition], key: str) -> list[Definition]:
    """The definition of a key, and those that it refers to, directly or through others."""
    by_key = {d.key: d for d in definitions}
    todo, found = [key], {}
    while todo:
        name = todo.pop()
        if name in by_key and name not in found:
            found[name] = by_key[name]
            todo += references(by_key[name].condition)
    return list(found.values())


class Circle(Exception):
    """Definitions that refer to each other in a circle; `keys` are those in it, or behind it."""

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__(sorted(keys))
        self.keys = sorted(keys)


def ordered(definitions: Sequence[Definition]) -> list[Definition]:
    """Referred-to segments first. Raises Circle."""
    waiting, done = {d.key: d for d in definitions}, []
    needs = {d.key: references(d.condition) for d in definitions}
    while waiting:
        ready = [d for d in waiting.values() if needs[d.key].isdisjoint(waiting)]
        if not ready:
            raise Circle(waiting)
        for definition in ready:
            done.append(definition)
            del waiting[definition.key]
    return done


def spread(causes: Mapping[str, str], conditions: Mapping[str, Any]) -> dict[str, str]:
    """Why definitions cannot be answered: those of `causes`, and all that refer to them, directly or through others."""
    found = dict(causes)
    while True:
        more = {
            key: f"refers to {min(dead)}"
            for key, condition in conditions.items()
            if key not in found and (dead := references(condition) & set(found))
        }
        if not more:
            return found
        found |= more
