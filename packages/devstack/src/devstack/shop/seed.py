"""Fills an empty installation: campaigns through the admin API, real orders and seeded browsing through the collector."""

from __future__ import annotations

import csv
import gzip
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import httpx

from devstack.process import StartFailed
from devstack.shop.campaigns import BLOCKS, RULES, SEGMENTS, SLOTS
from devstack.shop.people import PEOPLE
from devstack.stack import Stack

ORDERS = Path(__file__).with_name("data") / "orders.csv.gz"
BATCH = 500
OURS = {s["key"] for s in SEGMENTS}
LIVE_S = 60
SHOES = [f"RUN-{n}" for n in range(1, 9)]


def campaigns(stack: Stack) -> int:
    """Create what is missing, and wait until all of it is live; answers how much was missing."""
    created = 0
    live = {"status": "live"}
    plan = (
        ("segments", [{**s, "status": "active"} for s in SEGMENTS]),
        ("slots", SLOTS),
        ("blocks", [{**b, **live} for b in BLOCKS]),
        ("cart-rules", [{**r, **live} for r in RULES]),
    )
    with httpx.Client(
        base_url=f"{stack.url}/admin/v1", headers={"x-api-key": stack.secrets.admin}, timeout=30
    ) as admin:
        for noun, bodies in plan:
            for body in bodies:
                answer = admin.post(f"/{noun}", json=body)
                if answer.status_code != 409:
                    answer.raise_for_status()
                    created += 1
        until = time.monotonic() + LIVE_S
        while not all(s["live_version"] for s in admin.get("/segments").json()["segments"] if s["key"] in OURS):
            if time.monotonic() > until:
                raise StartFailed("the demo segments do not become live: see .run/segment_svc.log")
            time.sleep(0.1)
    return created


def _event(number: str, kind: str, at: datetime, subject: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "source": "demo", "type": kind, "time": at.isoformat(), "subject": subject, "data": data}


def _money(minor: str | int) -> dict[str, Any]:
    return {"amount": int(minor), "currency": "EUR"}


def orders() -> Iterator[dict[str, Any]]:
    """The real orders as events, moved so that the last day of the data is yesterday."""
    with gzip.open(ORDERS, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    last = max(datetime.fromisoformat(r["ts"]).replace(tzinfo=UTC) for r in rows)
    shift = timedelta(days=(datetime.now(UTC) - last).days)
    for (customer, order), lines in groupby(rows, key=lambda r: (r["customer"], r["order"])):
        found = list(lines)
        at = datetime.fromisoformat(found[0]["ts"]).replace(tzinfo=UTC) + shift
        items = [
            {
                "sku": line["sku"],
                "name": line["name"],
                "category": "consumables" if "NAPKIN" in line["name"] or "CANDLE" in line["name"] else "gifts",
                "quantity": int(line["quantity"]),
                "price": _money(line["price_minor"]),
            }
            for line in found
        ]
        data = {"order_id": order, "status": "placed", "grand_total": _money(found[0]["total_minor"]), "items": items}
        yield _event(f"order-{order}", "order_placed", at, f"customer:{customer}", data)


def browsing(*, visitors: int = 200, seed: int = 7) -> Iterator[dict[str, Any]]:
    """Views of the last week by visitors nobody knows; the same ones for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - data, not secrets
    now = datetime.now(UTC).replace(microsecond=0)
    for visitor in range(visitors):
        for view in range(rng.randrange(1, 12)):
            at = now - timedelta(minutes=rng.randrange(7 * 24 * 60))
            data = {"sku": rng.choice(SHOES), "category": rng.choice(["shoes/running", "shoes/hiking"])}
            yield _event(f"view-{visitor}-{view}", "product_view", at, f"visitor:demo-{visitor}", data)


def people() -> Iterator[dict[str, Any]]:
    """What makes the customers of the demo what they are; the same events on the same day."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for customer in PEOPLE.values():
        if customer.group:
            number = f"{customer.id}-group"
            yield _event(number, "group_assigned", today, f"customer:{customer.id}", {"group": customer.group})
        for order in customer.orders:
            at = today - timedelta(days=order.days_ago)
            number = f"{customer.id}-{at.date()}"
            items = [{"sku": order.sku, "category": order.category, "quantity": 1, "price": _money(order.total)}]
            data = {"order_id": number, "status": "placed", "grand_total": _money(order.total), "items": items}
            yield _event(number, "order_placed", at, f"customer:{customer.id}", data)


def publish(stack: Stack, events: Iterator[dict[str, Any]]) -> int:
    """Hand events to the collector as the shop's server would; answers how many were taken."""
    total = 0
    with httpx.Client(base_url=stack.url, headers={"x-api-key": stack.secrets.secret}, timeout=30) as server:
        while batch := list(islice(events, BATCH)):
            answer = server.post("/v1/events", json={"events": batch})
            answer.raise_for_status()
            total += int(answer.json()["accepted"])
    return total


def settled(stack: Stack) -> bool:
    """Wait until the gateway knows what the customers of the demo are; False when that takes too long."""
    until = time.monotonic() + LIVE_S
    waiting = [customer.id for customer in PEOPLE.values() if customer.id]
    with httpx.Client(base_url=stack.url, headers={"x-api-key": stack.secrets.secret}, timeout=30) as server:
        while waiting and time.monotonic() < until:
            asked = {"profile": f"c:{waiting[-1]}", "slots": "home.hero"}
            if server.get("/v1/explain", params=asked).json().get("segments"):
                waiting.pop()
            else:
                time.sleep(0.05)
    return not waiting


def seed(stack: Stack) -> str:
    """Set the shop up, or what is missing of it after a start that was cut off; one line on what was done."""
    done = stack.state / "seeded"
    created = campaigns(stack)
    publish(stack, people())
    if not created and done.exists():
        return "The demo shop is there already"
    if not settled(stack):
        raise StartFailed("the demo customers do not get into their segments: see .run/segment_svc.log")
    said = f"Demo shop: {len(SEGMENTS)} segments, {publish(stack, orders())} orders, {publish(stack, browsing())} views"
    done.touch()
    return said
