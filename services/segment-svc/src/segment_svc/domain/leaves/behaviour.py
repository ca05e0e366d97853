"""Conditions on what a person did: events, carts, lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conditions.operators import compare
from conditions.tree import Fail, LeafType

from segment_svc.domain.facts import Facts
from segment_svc.domain.leaves.shapes import Where, amount, expiries, only, where, window

CART_FIELDS = ("subtotal", "grand_total", "line_items", "quantity")


class Scoped(LeafType):
    """A leaf that looks only at what happened on some websites (none named: all)."""

    def __init__(self, websites: tuple[str, ...]) -> None:
        self.websites = websites
        self.scope = ",".join(websites)


class Events(Scoped):
    """{"events": {type, count: {op, value}, window?, where?}}: how often it happened, zero included."""

    key = "events"
    temporal = True

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = raw["events"]
        if not isinstance(body, Mapping) or not isinstance(body.get("type"), str):
            fail("/events/type", "wrong-type", "events need a type")
            return None
        only(body, ("type", "count", "window", "where"), "/events", fail)
        op, value = amount(body.get("count", {"op": "gte", "value": 1}), "/events/count", fail)
        span = window(body.get("window"), "/events/window", fail)
        return body["type"], op, value, span, where(body.get("where"), "/events/where", fail), _frozen(body)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"events": params[-1].value}

    def _matching(self, params: Any, facts: Facts) -> list[int]:
        kind, _, _, _, accept, _ = params
        found = facts.entries(kind, self.websites)
        return [e[0] for e in found] if accept is None else [e[0] for e in found if accept.holds(e[3])]

    def _count(self, params: Any, facts: Facts, now: int) -> int:
        instants, span = self._matching(params, facts), params[3]
        if span is not None:
            return sum(span.holds(at, now) for at in instants)
        dropped = 0 if params[4] or self.websites else facts.profile.dropped.get(params[0], (0, 0))[0]
        return len(instants) + dropped

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        return compare(params[1], self._count(params, facts, now), params[2])

    def change(self, params: Any, facts: Facts, now: int) -> int | None:
        """See LeafType: each event that leaves a rolling window takes one off the count."""
        if params[3] is None or params[3].last is None:
            return None
        leaving = expiries(self._matching(params, facts), params[3], now)
        current = compare(params[1], len(leaving), params[2])
        for i, at in enumerate(leaving):
            last_of_instant = i + 1 == len(leaving) or leaving[i + 1] != at
            if last_of_instant and compare(params[1], len(leaving) - i - 1, params[2]) != current:
                return at
        return None

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return self._count(params, facts, now)


class LastEvent(Scoped):
    """{"last_event": {type, where?, has}}: the most recent event that `where` selects satisfies `has`."""

    key = "last_event"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = raw["last_event"]
        if not isinstance(body, Mapping) or not isinstance(body.get("type"), str) or "has" not in body:
            fail("/last_event", "wrong-type", "last_event needs type and has")
            return None
        only(body, ("type", "where", "has"), "/last_event", fail)
        selected = where(body.get("where"), "/last_event/where", fail)
        return body["type"], selected, where(body["has"], "/last_event/has", fail), _frozen(body)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"last_event": params[-1].value}

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        found = reversed(facts.entries(params[0], self.websites))
        return next((e[3] for e in found if params[1] is None or params[1].holds(e[3])), None)

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        last = self.seen(params, facts, now)
        return last is not None and bool(params[2].holds(last))


class Cart(LeafType):
    """{"cart": {field, op, value}}: an amount or count of the current cart; an empty cart has zeros."""

    key = "cart"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = raw["cart"]
        if not isinstance(body, Mapping) or body.get("field") not in CART_FIELDS:
            fail("/cart/field", "unknown-field", f"cart has {', '.join(CART_FIELDS)}")
            return None
        only(body, ("field", "op", "value"), "/cart", fail)
        return body["field"], *amount(body, "/cart", fail)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"cart": {"field": params[0], "op": params[1], "value": params[2]}}

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        return compare(params[1], facts.cart()[params[0]], params[2])

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return facts.cart()[params[0]]


class ProductList(LeafType):
    """{"list": {name: cart | wishlist, found, where}}: some line satisfies `where`, or none does."""

    key = "list"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = raw["list"]
        if not isinstance(body, Mapping) or body.get("name") not in ("cart", "wishlist"):
            fail("/list/name", "unknown-field", "list is cart or wishlist")
            return None
        only(body, ("name", "found", "where"), "/list", fail)
        found = body.get("found", True)
        if not isinstance(found, bool) or body.get("where") is None:
            fail("/list", "wrong-type", "list needs where, and found is true or false")
        return body["name"], bool(found), where(body.get("where"), "/list/where", fail), _frozen(body)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"list": params[-1].value}

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        lines = facts.cart()["items"]
        if params[0] == "wishlist":
            updates = facts.entries("wishlist_update", ())
            lines = updates[-1][3].get("items") or [] if updates else []
        accept: Where = params[2]
        return [line for line in lines if accept.holds(line)]

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        return bool(self.seen(params, facts, now)) is params[1]


class _frozen:  # noqa: N801 - reads like a cast
    """JSON kept for the storage form; equal by identity, which is all a leaf needs."""

    __slots__ = ("value",)

    def __init__(self, value: Mapping[str, Any]) -> None:
        self.value = dict(value)
