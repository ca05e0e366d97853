"""What the ingest bench feeds: a skewed stream of shop events, as our messages and as the prototype's, and 20 segments."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from chassis.bus import Record
from contracts import topics

EVENTS, VISITORS, SEGMENTS, BYTES = 180_000, 20_000, 20, 342
HEADERS = (("content-type", b"application/cloudevents+json"),)
KINDS = ("product_view", "product_view", "product_view", "add_to_cart", "order_placed")
_encode = msgspec.json.Encoder().encode


def _rows() -> Iterator[tuple[str, str, int, int, int]]:
    """(visitor, kind, epoch ms, number, minor units): half of the traffic goes to few of the visitors."""
    rng, start = random.Random(9), int(time.time() * 1000) - 10 * EVENTS
    for number in range(EVENTS):
        visitor = int(rng.paretovariate(1.2) * 50) % VISITORS if rng.random() < 0.5 else rng.randrange(VISITORS)
        yield f"v{visitor}", rng.choice(KINDS), start + number * 10, number, rng.randrange(9999)


def _padded(body: dict[str, Any]) -> bytes:
    """The message at BYTES bytes: what a real one carries besides (campaign, trace) stands as one extension."""
    return _encode({**body, "ctx": "x" * max(0, BYTES - len(_encode(body)) - 9)})


def records() -> list[Record]:
    """The stream as Kafka messages of the product."""
    return [_record(*row) for row in _rows()]


def _record(visitor: str, kind: str, at: int, number: int, minor: int) -> Record:
    money, sku = {"amount": minor, "currency": "EUR"}, f"S{number * 7919 % 9999}"
    data: dict[str, Any] = {"sku": sku, "category": f"c/{number % 60}", "price": money}
    if kind == "add_to_cart":
        data = {"item": {"sku": sku, "quantity": 1, "price": money}}
    elif kind == "order_placed":
        data = {"order_id": f"o{number}", "status": "placed", "grand_total": money}
    when = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"id": f"01JD8Z6T0Q4W9YB7R5N3M2{number:06d}", "source": "shop", "type": kind, "time": when}
    body = _padded({**event, "subject": f"visitor:{visitor}", "data": data})
    return Record(topics.TOPIC_OF[kind], visitor.encode(), body, HEADERS)


def flat_messages() -> list[bytes]:
    """The same stream as the prototype's flat messages, of the same size."""
    names = {"product_view": "view", "add_to_cart": "cart", "order_placed": "order"}
    return [
        _padded(
            {
                "id": f"01JD8Z6T0Q4W9YB7R5N3M2{number:06d}",
                "type": names[kind],
                "ts": at,
                "visitor": visitor,
                "sku": f"S{number * 7919 % 9999}",
                "cat": f"c/{number % 60}",
                "price": minor,
                "country": "DE",
                "device": "mobile",
            }
        )
        for visitor, kind, at, number, minor in _rows()
    ]


def conditions() -> list[dict[str, Any]]:
    """20 trees of four conditions each, over windows, orders, days and the cart: thresholds to reach, as shops set them."""
    rng = random.Random(5)
    return [{"all": [_leaf(rng), _leaf(rng), {"any": [_leaf(rng), _leaf(rng)]}]} for _ in range(SEGMENTS)]


def _leaf(rng: random.Random) -> dict[str, Any]:
    def amount(most: int) -> dict[str, Any]:
        return {"op": rng.choice(["gt", "gte"]), "value": rng.randrange(1, most)}

    return rng.choice(
        [
            {"events": {"type": "product_view", "count": amount(40), "window": {"last": "P7D"}}},
            {"events": {"type": "product_view", "count": amount(90)}},
            {"events": {"type": "add_to_cart", "count": amount(30), "window": {"last": "P30D"}}},
            {"events": {"type": "product_view", "count": amount(9), "where": [{"field": "category", "value": "c/7"}]}},
            {"orders": {"measure": "count", **amount(20)}},
            {"orders": {"measure": "sum", **amount(1000)}},
            {"days_since": {"of": "last_order", **amount(90)}},
            {"cart": {"field": "subtotal", **amount(300)}},
            {"attribute": "country", "op": "eq", "value": rng.choice(["DE", "FR", "US"])},
        ]
    )
