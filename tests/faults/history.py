"""A history of shop events, and an independent recomputation of what must come out of it: no code of the product."""

from __future__ import annotations

import csv
import gzip
import os
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from chassis.bus import Record
from contracts import topics

DAY_MS = 86_400_000
HEADERS = (("content-type", b"application/cloudevents+json"),)
KINDS = {
    "product_view": "product_view",
    "cart_add": "add_to_cart",
    "cart_remove": "remove_from_cart",
    "order_placed": "order_placed",
}
VIEWERS, SPENDERS, RECENT = "viewers", "spenders", "recent"
CONDITIONS: dict[str, dict[str, Any]] = {
    VIEWERS: {"events": {"type": "product_view", "count": {"op": "gte", "value": 20}}},
    SPENDERS: {"orders": {"measure": "sum", "op": "gt", "value": 150}},
    RECENT: {"events": {"type": "add_to_cart", "count": {"op": "gte", "value": 3}, "window": {"last": "P7D"}}},
}


@dataclass(slots=True)
class History:
    """(visitor, kind, at_ms, amount_minor) in order; `records` are the same as messages, duplicates included."""

    rows: list[tuple[str, str, int, int]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def counts(self) -> Counter[tuple[str, str]]:
        """How often each visitor did what."""
        return Counter((visitor, kind) for visitor, kind, _, _ in self.rows)

    def members(self, segment: str, now_ms: int) -> set[str]:
        """Who must be in a segment of CONDITIONS at an instant."""
        totals: dict[str, int] = defaultdict(int)
        for visitor, kind, at, amount in self.rows:
            if segment == VIEWERS and kind == "product_view":
                totals[visitor] += 1
            elif segment == SPENDERS and kind == "order_placed":
                totals[visitor] += amount
            elif segment == RECENT and kind == "add_to_cart" and now_ms - 7 * DAY_MS < at <= now_ms:
                totals[visitor] += 1
        limit = {VIEWERS: 20, SPENDERS: 15_001, RECENT: 3}[segment]
        return {visitor for visitor, total in totals.items() if total >= limit}


def _rows(most: int) -> list[tuple[str, str, int, int]]:
    """Recorded events where FAULT_EVENTS names a file of them, else a seeded history of the same kind."""
    path = os.environ.get("FAULT_EVENTS")
    if path:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            found = [
                (row["visitor_id"], KINDS[row["event_type"]], int(row["ts_ms"]), int(row["order_total_minor"] or 0))
                for row in csv.DictReader(file)
            ]
        return found[-most:]
    rng = random.Random(11)
    kinds = ["product_view"] * 6 + ["add_to_cart"] * 3 + ["remove_from_cart", "order_placed"]
    start = 1_600_000_000_000
    return [
        (f"s{int(rng.paretovariate(0.6)) % 900}", rng.choice(kinds), start + i * 40_000, rng.randrange(100, 9000))
        for i in range(most)
    ]


def history(most: int, rows: list[tuple[str, str, int, int]] | None = None) -> History:
    """A history that ends ten minutes ago; every fifteenth record comes twice."""
    rows = rows or _rows(most)
    shift = int(time.time() * 1000) - 600_000 - rows[-1][2]
    made, rng, encode = History(), random.Random(5), msgspec.json.Encoder().encode
    for i, (visitor, kind, at, amount) in enumerate(rows):
        at += shift
        made.rows.append((visitor, kind, at, amount))
        record = Record(topics.TOPIC_OF[kind], visitor.encode(), encode(_event(i, visitor, kind, at, amount)), HEADERS)
        made.records += [record, record] if rng.random() < 1 / 15 else [record]
    return made


def _event(number: int, visitor: str, kind: str, at: int, amount: int) -> dict[str, Any]:
    money = {"amount": amount, "currency": "EUR"}
    data: dict[str, Any] = {"sku": f"P{number % 97}"}
    if kind == "order_placed":
        data = {"order_id": f"o{number}", "status": "placed", "grand_total": money}
    elif kind != "product_view":
        data = {"item": {"sku": f"P{number % 97}", "quantity": 1, "price": money}}
    when = datetime.fromtimestamp(at / 1000, UTC).isoformat()
    return {
        "id": f"h{number}",
        "source": "history",
        "type": kind,
        "time": when,
        "subject": f"visitor:{visitor}",
        "data": data,
    }
