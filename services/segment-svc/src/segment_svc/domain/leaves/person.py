"""Conditions on the person: attributes, customer group; and the guards the system adds itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conditions.context import comparison, comparison_json
from conditions.operators import matcher
from conditions.tree import Answer, Fail, LeafType

from segment_svc.domain.facts import Facts
from segment_svc.domain.leaves.shapes import only
from segment_svc.domain.profile import register


class Attribute(LeafType):
    """{"attribute": name, op, value}: the latest value assigned to it."""

    key = "attribute"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        if not isinstance(raw["attribute"], str) or not raw["attribute"]:
            fail("/attribute", "wrong-type", "an attribute has a name")
        return comparison(raw, "attribute", fail)

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
        matches, register_name = matcher(op, literal), f"attributes.{name}"
        return lambda facts, now: matches(register(facts.profile, register_name))

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return register(facts.profile, f"attributes.{params[0]}")


class CustomerGroup(LeafType):
    """{"group": {"op": "in" | "not_in", "values": [...]}}: the static group; a visitor's is empty."""

    key = "group"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = raw["group"]
        if (
            not isinstance(body, Mapping)
            or body.get("op") not in ("in", "not_in")
            or not isinstance(body.get("values"), list)
        ):
            fail("/group", "wrong-type", "group needs op (in, not_in) and a list of values")
            return None
        only(body, ("op", "values"), "/group", fail)
        return body["op"], tuple(str(v) for v in body["values"])

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


class Listed(LeafType):
    """{"listed": [[profile key, until or null]...]}: hand-picked people; added by the system from the overrides."""

    key = "listed"
    temporal = True

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        return tuple((str(key), until) for key, until in raw["listed"])

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"listed": [list(p) for p in params]}

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        return any(key == facts.key and (until is None or now < until) for key, until in params)

    def change(self, params: Any, facts: Facts, now: int) -> int | None:
        """See LeafType."""
        ends = (until for key, until in params if key == facts.key and until is not None and now < until)
        return min(ends, default=None)

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
        body = raw["segment"]
        if not isinstance(body, Mapping) or body.get("op") not in ("in", "not_in", "all"):
            fail("/segment/op", "unknown-operator", "segment needs op (in, not_in, all) and keys")
            return None
        keys = body.get("keys")
        if not isinstance(keys, list) or not keys or not all(isinstance(k, str) for k in keys):
            fail("/segment/keys", "empty", "segment needs at least one key")
            return None
        only(body, ("op", "keys"), "/segment", fail)
        return body["op"], tuple(keys)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"segment": {"op": params[0], "keys": list(params[1])}}

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType. A segment that does not serve has no members."""
        inside = [key in self._bits and bool(facts.bits >> self._bits[key] & 1) for key in params[1]]
        return all(inside) if params[0] == "all" else any(inside) == (params[0] == "in")

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return [key for key in params[1] if key in self._bits and facts.bits >> self._bits[key] & 1]
