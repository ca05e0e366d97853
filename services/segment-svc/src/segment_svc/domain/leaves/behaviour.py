"""Conditions on what a person did: events, carts, lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from conditions.measures import Compared, Cut, Measure, MeasuredLeaf, fall
from conditions.read import only
from conditions.tree import Fail, LeafType
from conditions.values import Number

from segment_svc.domain.cart import CART_PARTS
from segment_svc.domain.event_fields import LINE, event_type
from segment_svc.domain.facts import Facts
from segment_svc.domain.leaves.shapes import Window, amount, body_of, choice, window
from segment_svc.domain.leaves.where import Where, where

CART_FIELDS = ("subtotal", "grand_total", "line_items", "quantity")


class EventCount(Measure):
    """How often events of a type that `accept` selects happened, in a window or ever."""

    def __init__(self, body: Mapping[str, Any], websites: tuple[str, ...], span: Window | None, accept: Where | None):
        self._kind, self._websites, self._span, self._accept = body["type"], websites, span, accept
        self._selection = f"events {json.dumps([self._kind, websites, body.get('where')])}"
        self.key = f"{self._selection} {json.dumps(body.get('window'))}"
        self.temporal = span is not None and span.last is not None
        self.parts = (self._kind,)

    def _instants(self, facts: Facts) -> Sequence[int]:
        found: Sequence[int] | None = facts.kept.get(self._selection)
        if found is None:
            found = facts.kept[self._selection] = self._select(facts)
        return found

    def _select(self, facts: Facts) -> Sequence[int]:
        accept = self._accept
        if accept is None:
            return facts.instants(self._kind, self._websites)
        return facts.matching(self._kind, self._websites, accept)

    def read(self, facts: Facts, now: int) -> int:
        """See Measure. Events beyond the kept ones count where nothing needs to be known of them but the type."""
        if self._span is not None:
            first, end = self._span.part(self._instants(facts), now)
            return end - first
        kept = len(self._instants(facts))
        if self._accept is not None or self._websites:
            return kept
        return kept + facts.profile.dropped.get(self._kind, (0, 0))[0]

    def change(self, facts: Facts, now: int, value: Number, cuts: Sequence[Cut]) -> int | None:
        """See Measure: events leave a rolling window one after the other."""
        assert self._span is not None
        assert self._span.last is not None
        leaving = fall(cuts, int(value))
        if leaving > value:
            return None
        instants = self._instants(facts)
        return instants[self._span.part(instants, now)[0] + leaving - 1] + self._span.last


class Events(MeasuredLeaf):
    """{"events": {type, count: {op, value}, window?, where?}}: how often it happened, zero included."""

    key = "events"

    def __init__(self, websites: tuple[str, ...], zone: ZoneInfo) -> None:
        self._websites, self._zone = websites, zone

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = body_of(raw, self.key, ("type", "count", "window", "where"), fail)
        if body is None:
            return None
        kind, fields = event_type(body.get("type"), "/events/type", fail)
        if not kind:
            return None
        count = body.get("count", {"op": "gte", "value": 1})
        if isinstance(count, Mapping):
            only(count, ("op", "value"), fail, "/events/count")
        op, value = amount(count, "/events/count", fail)
        span = window(body.get("window"), self._zone, "/events/window", fail)
        accept = where(body.get("where"), fields, "/events/where", fail)
        return Compared(EventCount(body, self._websites, span, accept), op, value, dict(body))


class LastEvent(LeafType):
    """{"last_event": {type, where?, has}}: the most recent event that `where` selects satisfies `has`."""

    key = "last_event"

    def __init__(self, websites: tuple[str, ...]) -> None:
        self._websites, self.scope = websites, ",".join(websites)

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = body_of(raw, self.key, ("type", "where", "has"), fail)
        if body is None:
            return None
        kind, fields = event_type(body.get("type"), "/last_event/type", fail)
        if not kind:
            return None
        selected = where(body.get("where"), fields, "/last_event/where", fail)
        has = where(body.get("has"), fields, "/last_event/has", fail)
        if body.get("has") is None:
            fail("/last_event/has", "wrong-type", "has says what must hold of the last event")
        return kind, selected, has, json.dumps(body, sort_keys=True)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"last_event": json.loads(params[-1])}

    def parts(self, params: Any) -> tuple[str, ...]:
        """See LeafType."""
        return (params[0],)

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        found = facts.events(params[0], self._websites, newest_first=True)
        return next((props for _, props in found if params[1] is None or params[1].holds(props)), None)

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        last = self.seen(params, facts, now)
        return last is not None and bool(params[2].holds(last))


class CartAmount(Measure):
    """An amount or a count of the current cart."""

    parts = CART_PARTS

    def __init__(self, field: str) -> None:
        self._field, self.key = field, f"cart {field}"

    def read(self, facts: Facts, now: int) -> Number:
        """See Measure."""
        found: Number = facts.cart()[self._field]
        return found


class Cart(MeasuredLeaf):
    """{"cart": {field, op, value}}: an amount or count of the current cart; an empty cart has zeros."""

    key = "cart"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = body_of(raw, self.key, ("field", "op", "value"), fail)
        if body is None:
            return None
        field = choice(body, "field", CART_FIELDS, "/cart", fail)
        return Compared(CartAmount(field), *amount(body, "/cart", fail), dict(body)) if field else None


class ProductList(LeafType):
    """{"list": {name: cart | wishlist, found, where}}: some line satisfies `where`, or none does."""

    key = "list"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = body_of(raw, self.key, ("name", "found", "where"), fail)
        if body is None:
            return None
        name, found = choice(body, "name", ("cart", "wishlist"), "/list", fail), body.get("found", True)
        if not isinstance(found, bool):
            fail("/list/found", "wrong-type", "found is true or false")
        accept = where(body.get("where"), LINE, "/list/where", fail)
        if body.get("where") is None:
            fail("/list/where", "wrong-type", "where says which lines are meant")
        return name, found, accept, json.dumps(body, sort_keys=True)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"list": json.loads(params[-1])}

    def parts(self, params: Any) -> tuple[str, ...]:
        """See LeafType."""
        return CART_PARTS if params[0] == "cart" else ("wishlist_update",)

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return [line for line in self._lines(params[0], facts) if params[2].holds(line)]

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        return any(map(params[2].holds, self._lines(params[0], facts))) is params[1]

    def _lines(self, name: str, facts: Facts) -> Sequence[Mapping[str, Any]]:
        if name == "cart":
            found: Sequence[Mapping[str, Any]] = facts.cart()["items"]
            return found
        _, last = next(facts.events("wishlist_update", (), newest_first=True), (0, {}))
        return last.get("items") or []
