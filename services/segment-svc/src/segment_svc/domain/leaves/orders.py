"""Conditions on orders: totals over a window, and days since something."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from conditions.measures import Compared, Cut, Measure, MeasuredLeaf, first_passed, rise
from conditions.operators import compare
from conditions.tree import Fail
from conditions.values import Number, ratio

from segment_svc.domain.amounts import decimal, units
from segment_svc.domain.event_fields import ORDER, TOTALS
from segment_svc.domain.facts import NOT_COUNTED, ORDER_PARTS, Facts
from segment_svc.domain.leaves.shapes import DAY_MS, Window, amount, body_of, choice, midnight, window
from segment_svc.domain.leaves.where import Where, where

MOST_DAYS = 36_600
MEASURES = ("count", "sum", "avg", "net", "refunds", "avg_gap_days")
SINCE = {"last_order": ORDER_PARTS, "first_order": ORDER_PARTS, "last_login": ("login",), "last_activity": None}


class OrderTotal(Measure):
    """A total over the orders that `accept` selects, in a window or ever.

    Cancelled ones count only where the filter asks for orders of that very status.
    """

    def __init__(self, body: Mapping[str, Any], websites: tuple[str, ...], span: Window | None, accept: Where | None):
        self._measure, self._field = body["measure"], body.get("field", "grand_total")
        self._websites, self._span, self._accept = websites, span, accept
        self._by_status = accept is not None and any(
            t.path == "status" and t.op in ("eq", "in") and compare(t.op, NOT_COUNTED, t.literal) for t in accept.tests
        )
        self._selection = f"orders {json.dumps([websites, body.get('where')])}"
        self.key = f"{self._selection} {json.dumps([self._measure, self._field, body.get('window')])}"
        self.temporal = span is not None and span.last is not None
        self.parts = ORDER_PARTS

    def _orders(self, facts: Facts) -> tuple[list[int], list[dict[str, Any]]]:
        found: tuple[list[int], list[dict[str, Any]]] | None = facts.kept.get(self._selection)
        if found is None:
            found = facts.kept[self._selection] = self._select(facts)
        return found

    def _select(self, facts: Facts) -> tuple[list[int], list[dict[str, Any]]]:
        accept = self._accept
        chosen = [
            o
            for o in facts.orders(self._websites)
            if (self._by_status or o["status"] != NOT_COUNTED) and (accept is None or accept.holds(o))
        ]
        return [o["at"] for o in chosen], chosen

    def read(self, facts: Facts, now: int) -> Number:
        """See Measure."""
        instants, orders = self._orders(facts)
        if self._span is not None:
            first, end = self._span.part(instants, now)
            orders = orders[first:end]
        return self._total(orders)

    def _total(self, orders: Sequence[dict[str, Any]]) -> Number:
        if self._measure == "count":
            return len(orders)
        if self._measure == "avg_gap_days":
            gaps = len(orders) - 1
            return ratio(orders[-1]["at"] - orders[0]["at"], DAY_MS * gaps) if gaps > 0 else 0
        refunds: int = sum(o["refunds"] for o in orders) if self._measure in ("net", "refunds") else 0
        if self._measure == "refunds":
            return decimal(refunds)
        total = sum(units(o.get(self._field)) for o in orders) - refunds
        return decimal(total, (len(orders) or 1) if self._measure == "avg" else 1)

    def change(self, facts: Facts, now: int, value: Number, cuts: Sequence[Cut]) -> int | None:
        """See Measure: orders leave a rolling window one after the other."""
        assert self._span is not None
        last = self._span.last
        assert last is not None
        instants, _ = self._orders(facts)
        first, end = self._span.part(instants, now)
        moments = (at + last for at in instants[first:end])
        return first_passed(moments, value, cuts, lambda at: self.read(facts, at))


class Orders(MeasuredLeaf):
    """{"orders": {measure, op, value, field?, where?, window?}}: see OrderTotal."""

    key = "orders"

    def __init__(self, websites: tuple[str, ...], zone: ZoneInfo) -> None:
        self._websites, self._zone = websites, zone

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = body_of(raw, self.key, ("measure", "op", "value", "field", "where", "window"), fail)
        if body is None:
            return None
        measure = choice(body, "measure", MEASURES, "/orders", fail)
        if "field" in body:
            choice(body, "field", TOTALS, "/orders", fail)
        accept = where(body.get("where"), ORDER, "/orders/where", fail)
        op, value = amount(body, "/orders", fail)
        span = window(body.get("window"), self._zone, "/orders/window", fail)
        return Compared(OrderTotal(body, self._websites, span, accept), op, value, dict(body)) if measure else None


class Days(Measure):
    """Days since the first or last order that `accept` selects, the last login, or anything at all; None: never."""

    temporal = True

    def __init__(self, body: Mapping[str, Any], websites: tuple[str, ...], zone: ZoneInfo, accept: Where | None):
        self._of, self._calendar = body["of"], body.get("mode") == "calendar"
        self._websites, self._zone, self._accept = websites, zone, accept
        self._selection = f"since {json.dumps([self._of, websites, body.get('where')])}"
        self.key = f"{self._selection} {self._calendar}"
        self.parts = SINCE[self._of]

    def _since(self, facts: Facts) -> int | None:
        if self._selection not in facts.kept:
            facts.kept[self._selection] = self._find(facts)
        found: int | None = facts.kept[self._selection]
        return found

    def _find(self, facts: Facts) -> int | None:
        if self._of in ("last_order", "first_order"):
            accept, orders = self._accept, facts.orders(self._websites)
            found = (
                o["at"]
                for o in (reversed(orders) if self._of == "last_order" else orders)
                if o["status"] != NOT_COUNTED and (accept is None or accept.holds(o))
            )
            return next(found, None)
        kinds = ["login"] if self._of == "last_login" else list(facts.profile.log)
        return max((at for kind in kinds for at in facts.instants(kind, self._websites)[-1:]), default=None)

    def read(self, facts: Facts, now: int) -> int | None:
        """See Measure."""
        since = self._since(facts)
        if since is None:
            return None
        return (self._date(now) - self._date(since)).days if self._calendar else (now - since) // DAY_MS

    def _date(self, at: int) -> date:
        return datetime.fromtimestamp(at / 1000, self._zone).date()

    def change(self, facts: Facts, now: int, value: Number, cuts: Sequence[Cut]) -> int | None:
        """See Measure: days only grow."""
        since = self._since(facts)
        days = next(iter(rise(cuts, int(value))), None)
        if since is None or days is None:
            return None
        if not self._calendar:
            return since + days * DAY_MS
        return midnight(self._date(since) + timedelta(days=days), self._zone)


class DaysSince(MeasuredLeaf):
    """{"days_since": {of, mode, op, value, if_never, where?}}: whole 24 hours, or calendar days in the shop's zone."""

    key = "days_since"

    def __init__(self, websites: tuple[str, ...], zone: ZoneInfo) -> None:
        self._websites, self._zone = websites, zone

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = body_of(raw, self.key, ("of", "mode", "op", "value", "if_never", "where"), fail)
        if body is None:
            return None
        of = choice(body, "of", tuple(SINCE), "/days_since", fail)
        choice({"mode": "elapsed", **body}, "mode", ("elapsed", "calendar"), "/days_since", fail)
        accept = where(body.get("where"), ORDER, "/days_since/where", fail)
        if accept is not None and SINCE.get(of) != ORDER_PARTS:
            fail("/days_since/where", "unknown-field", "only orders are filtered")
        op, value = amount(body, "/days_since", fail)
        if not -MOST_DAYS <= value <= MOST_DAYS:
            fail("/days_since/value", "out-of-range", f"{MOST_DAYS} days at most")
        if_never = body.get("if_never", False)
        if not isinstance(if_never, bool):
            fail("/days_since/if_never", "wrong-type", "if_never is true or false")
        return Compared(Days(body, self._websites, self._zone, accept), op, value, dict(body), if_never) if of else None
