"""Conditions on orders: totals over a window, and days since something."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from conditions.operators import compare
from conditions.read import nearest
from conditions.tree import Fail

from segment_svc.domain.facts import NOT_COUNTED, Facts, units
from segment_svc.domain.leaves.behaviour import Scoped
from segment_svc.domain.leaves.shapes import DAY_MS, amount, expiries, first_flip, only, where, window

MEASURES = ("count", "sum", "avg", "net", "refunds", "avg_gap_days")
SINCE = {"last_order": None, "first_order": None, "last_login": "login", "last_activity": None}


def _measure(measure: str, orders: list[dict[str, Any]], field: str) -> float:
    if measure == "count":
        return len(orders)
    if measure == "avg_gap_days":
        gaps = len(orders) - 1
        return float((orders[-1]["at"] - orders[0]["at"]) / DAY_MS / gaps) if gaps > 0 else 0
    refunds: int = sum(o["refunds"] for o in orders)
    total = sum(units(o.get(field)) for o in orders)
    if measure == "refunds":
        return refunds / 10_000
    if measure == "avg":
        return total / 10_000 / len(orders) if orders else 0
    return (total - (refunds if measure == "net" else 0)) / 10_000


class Orders(Scoped):
    """{"orders": {measure, op, value, field?, where?, window?}}: cancelled ones count only when `where` asks for them."""

    key = "orders"
    temporal = True

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = raw["orders"]
        if not isinstance(body, Mapping) or body.get("measure") not in MEASURES:
            given = body.get("measure") if isinstance(body, Mapping) else body
            fail("/orders/measure", "unknown-field", f"{given!r} is not a measure{nearest(str(given), MEASURES)}")
            return None
        only(body, ("measure", "op", "value", "field", "where", "window"), "/orders", fail)
        accept = where(body.get("where"), "/orders/where", fail)
        op, value = amount(body, "/orders", fail)
        span = window(body.get("window"), "/orders/window", fail)
        return body["measure"], op, value, body.get("field", "grand_total"), accept, span, dict(body)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"orders": params[-1]}

    def _selected(self, params: Any, facts: Facts) -> list[dict[str, Any]]:
        accept = params[4]
        by_status = accept is not None and any(name == "status" for name, _, _ in accept.tests)
        return [
            o
            for o in facts.orders(self.websites)
            if (by_status or o["status"] != NOT_COUNTED) and (accept is None or accept.holds(o))
        ]

    def _value(self, params: Any, orders: list[dict[str, Any]], now: int) -> float:
        span = params[5]
        return _measure(params[0], [o for o in orders if span is None or span.holds(o["at"], now)], params[3])

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        return compare(params[1], self._value(params, self._selected(params, facts), now), params[2])

    def change(self, params: Any, facts: Facts, now: int) -> int | None:
        """See LeafType: orders leave a rolling window one after the other."""
        if params[5] is None or params[5].last is None:
            return None
        orders = self._selected(params, facts)
        leaving = expiries((o["at"] for o in orders), params[5], now)

        def answer(at: int) -> bool:
            return compare(params[1], self._value(params, orders, at), params[2])

        return first_flip(leaving, answer(now), answer)

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        return self._value(params, self._selected(params, facts), now)


class DaysSince(Scoped):
    """{"days_since": {of, mode, op, value, if_never, where?}}: whole 24 hours, or calendar days in the shop's zone."""

    key = "days_since"
    temporal = True

    def __init__(self, websites: tuple[str, ...], zone: ZoneInfo) -> None:
        super().__init__(websites)
        self._zone = zone

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = raw["days_since"]
        if not isinstance(body, Mapping) or body.get("of") not in SINCE:
            given = body.get("of") if isinstance(body, Mapping) else body
            fail("/days_since/of", "unknown-field", f"{given!r} is not known{nearest(str(given), SINCE)}")
            return None
        only(body, ("of", "mode", "op", "value", "if_never", "where"), "/days_since", fail)
        if body.get("mode", "elapsed") not in ("elapsed", "calendar"):
            fail("/days_since/mode", "unknown-field", "mode is elapsed or calendar")
        accept = where(body.get("where"), "/days_since/where", fail)
        op, value = amount(body, "/days_since", fail)
        return body["of"], body.get("mode", "elapsed"), op, value, bool(body.get("if_never", False)), accept, dict(body)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"days_since": params[-1]}

    def _since(self, params: Any, facts: Facts) -> int | None:
        of, accept = params[0], params[5]
        if of in ("last_order", "first_order"):
            orders = [
                o["at"]
                for o in facts.orders(self.websites)
                if o["status"] != NOT_COUNTED and (accept is None or accept.holds(o))
            ]
            return (orders[-1] if of == "last_order" else orders[0]) if orders else None
        kinds = ["login"] if of == "last_login" else list(facts.profile.log)
        found = [e[0] for kind in kinds for e in facts.entries(kind, self.websites)[-1:]]
        return max(found, default=None)

    def _days(self, mode: str, since: int, now: int) -> int:
        if mode == "elapsed":
            return (now - since) // DAY_MS
        return (self._date(now) - self._date(since)).days

    def _date(self, at: int) -> date:
        return datetime.fromtimestamp(at / 1000, self._zone).date()

    def _midnight(self, day: date) -> int:
        return round(datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp() * 1000)

    def seen(self, params: Any, facts: Facts, now: int) -> Any:
        """See LeafType."""
        since = self._since(params, facts)
        return None if since is None else self._days(params[1], since, now)

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        """See LeafType."""
        days = self.seen(params, facts, now)
        return params[4] if days is None else compare(params[2], days, params[3])

    def change(self, params: Any, facts: Facts, now: int) -> int | None:
        """See LeafType: the answer can flip only where the count of days reaches the literal, or passes it."""
        since = self._since(params, facts)
        if since is None:
            return None
        edges = (int(params[3]), int(params[3]) + 1)
        if params[1] == "elapsed":
            moments = [since + days * DAY_MS for days in edges]
        else:
            moments = [self._midnight(self._date(since) + timedelta(days=days)) for days in edges]

        def answer(at: int) -> bool:
            return compare(params[2], self._days(params[1], since, at), params[3])

        return first_flip([m for m in moments if m > now], answer(now), answer)
