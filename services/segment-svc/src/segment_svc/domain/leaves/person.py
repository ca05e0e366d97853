"""Conditions on the person: attributes, customer group; and the guards the system adds itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

from conditions.context import comparison, comparison_json
from conditions.kinds import OPEN, matcher_for
from conditions.operators import MOST_LITERAL, MOST_LITERALS
from conditions.tree import Answer, Fail, LeafType
from conditions.values import elements, storable

from segment_svc.domain.event_fields import open_kind
from segment_svc.domain.facts import Facts
from segment_svc.domain.leaves.shapes import body_of, choice
from segment_svc.domain.profile import Profile, register


def attribute(profile: Profile, name: str) -> Any:
    """The latest value of an attribute; of one that holds objects, what is in them at a dotted path."""
    register_name = f"attributes.{name}"
    if register_name in profile.registers or "." not in name:
        return register(profile, register_name)
    head, _, rest = name.partition(".")
    return lookup(register(profile, f"attributes.{head}"), rest)


def lookup(value: Any, path: str) -> Any:
    """What is at a dotted path; of a list, what is there in all its elements."""
    if isinstance(value, list):
        return [lookup(item, path) for item in elements(value)]
    if not isinstance(value, Mapping):
        return None
    head, _, rest = path.partition(".")
    return lookup(value.get(head), rest) if rest and path not in value else value.get(path)


class Attribute(LeafType):
    """{"attribute": name, op, value}: the latest value assigned to it."""

    key = "attribute"

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        name = raw["attribute"]
        return comparison(raw, "attribute", fail, kind=open_kind(name) if isinstance(name, str) else OPEN)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return comparison_json("attribute", params)

    def parts(self, params: Any) -> tuple[str, ...]:
        """See LeafType."""
        return ("identify",)

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        return self.bind(params)(facts, now)

    def bind(self, params: Any) -> Answer:
        """See LeafType."""
        name, op, literal = params
        matches = matcher_for(open_kind(name), op, literal, self._zone)
        return lambda facts, now: matches(attribute(facts.profile, name))

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return attribute(facts.profile, params[0])


class CustomerGroup(LeafType):
    """{"group": {"op": "in" | "not_in", "values": [...]}}: the static group; a visitor's is empty."""

    key = "group"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = body_of(raw, self.key, ("op", "values"), fail)
        if body is None:
            return None
        op, values = choice(body, "op", ("in", "not_in"), "/group", fail), body.get("values")
        if not isinstance(values, list) or not 0 < len(values) <= MOST_LITERALS:
            fail("/group/values", "wrong-type", f"group needs a list of 1 to {MOST_LITERALS} values")
            return None
        for i, name in enumerate(values):
            if not isinstance(name, str) or len(name) > MOST_LITERAL or not storable(name):
                fail(f"/group/values/{i}", "wrong-type", "a group is a text")
        return op, tuple(values)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"group": {"op": params[0], "values": list(params[1])}}

    def parts(self, params: Any) -> tuple[str, ...]:
        """See LeafType."""
        return ("group_assigned",)

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        return (facts.profile.group in params[1]) is (params[0] == "in")

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return facts.profile.group


class Kind(LeafType):
    """{"kind": "visitor" | "customer"}: whom the segment applies to; added by the system."""

    key = "kind"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        return raw["kind"]

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"kind": params}

    def parts(self, params: Any) -> tuple[str, ...]:
        """See LeafType: a person's kind is for life."""
        return ()

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        return bool(facts.profile.kind == params)

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return facts.profile.kind


@dataclass(frozen=True)
class Picked:
    """Hand-picked people: (profile key, until, None for good) each. `ends`: the same by key; of several the latest holds."""

    pairs: tuple[tuple[str, int | None], ...]
    ends: dict[str, float] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        ends: dict[str, float] = {}
        for key, until in self.pairs:
            ends[key] = max(ends.get(key, 0), inf if until is None else until)
        object.__setattr__(self, "ends", ends)


class Listed(LeafType):
    """{"listed": [[profile key, until or null]...]}: hand-picked people; added by the system from the overrides."""

    key = "listed"
    temporal = True

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        return Picked(tuple((str(key), until) for key, until in raw["listed"]))

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"listed": [list(p) for p in params.pairs]}

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        return bool(now < params.ends.get(facts.key, 0))

    def change(self, params: Any, facts: Facts, now: int) -> int | None:
        """See LeafType."""
        end = params.ends.get(facts.key, inf)
        return int(end) if now < end < inf else None

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return facts.key


class Segment(LeafType):
    """{"segment": {"op": "in" | "not_in" | "all", "keys": [...]}}: bits decided earlier in the same pass."""

    key = "segment"
    chained = True

    def __init__(self, bits: Mapping[str, int]) -> None:
        self._bits = bits

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = body_of(raw, self.key, ("op", "keys"), fail)
        if body is None:
            return None
        op, keys = choice(body, "op", ("in", "not_in", "all"), "/segment", fail), body.get("keys")
        if (
            not isinstance(keys, list)
            or not 0 < len(keys) <= MOST_LITERALS
            or not all(isinstance(k, str) for k in keys)
        ):
            fail("/segment/keys", "empty", f"segment needs 1 to {MOST_LITERALS} keys")
            return None
        return op, tuple(keys)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"segment": {"op": params[0], "keys": list(params[1])}}

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType. Nobody is in a segment that does not serve, nor out of it: what cannot be known is neither."""
        op, keys = params
        inside = [bool(facts.bits >> self._bits[key] & 1) for key in keys if key in self._bits]
        if op == "in":
            return any(inside)
        return len(inside) == len(keys) and (all(inside) if op == "all" else not any(inside))

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return [key for key in params[1] if key in self._bits and facts.bits >> self._bits[key] & 1]
