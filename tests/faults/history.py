"""A history of a shop, and an independent recomputation of what must come out of it: no code of the product."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

DAY_MS, STEP_MS = 86_400_000, 200_000
DISPLACED, REPEATED, KEPT = 50, 1 / 15, 200
BROWSE, CART, ORDER, CUSTOMER = (
    "storefront.browse.v1",
    "storefront.cart.v1",
    "commerce.order.v1",
    "commerce.customer.v1",
)
TOPIC = {
    "product_view": BROWSE, "add_to_cart": CART, "remove_from_cart": CART, "order_placed": ORDER, "login": CUSTOMER,
    "group_assigned": CUSTOMER,
}  # fmt: skip
RECORDED = {
    "product_view": "product_view",
    "cart_add": "add_to_cart",
    "cart_remove": "remove_from_cart",
    "order_placed": "order_placed",
}
VIEWERS, SPENDERS, RECENT, VIPS = "viewers", "spenders", "recent", "vips"
CONDITIONS: dict[str, dict[str, Any]] = {
    VIEWERS: {"events": {"type": "product_view", "count": {"op": "gte", "value": 20}}},
    SPENDERS: {"orders": {"measure": "sum", "op": "gt", "value": 150}},
    RECENT: {"events": {"type": "add_to_cart", "count": {"op": "gte", "value": 3}, "window": {"last": "P7D"}}},
    VIPS: {"group": {"op": "in", "values": ["vip"]}},
}
# Views, orders and cart additions of people far beyond the bound of what is kept; each has two devices.
HEAVY = ((5000, 400, 300), (700, 260, 60), (620, 90, 250), (560, 210, 20))
Row = tuple[str, str, int, int]


class Did(NamedTuple):
    """One thing done by `v:<visitor>` or `c:<customer>`; `detail` is the device of a login, or a group."""

    who: str
    kind: str
    at: int
    amount: int = 0
    detail: str = ""


class Message(NamedTuple):
    """What is to be produced. The devices of a heavy person (...a, ...b) lie in partitions that two workers share out."""

    topic: str
    key: bytes
    value: bytes

    @property
    def partition(self) -> int:
        """Of the key, as a shop's own client may choose it."""
        return self.key[-1] % 4


def hash_of(event_id: str) -> int:
    """How an event is known: 64 bits of its source and id."""
    digest = hashlib.blake2b(f"history\0{event_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@dataclass
class History:
    """`did`: event id -> what was done. `messages` in the order of delivery; `repeated`: the ids that come twice."""

    did: dict[str, Did] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)

    def person(self, who: str) -> str:
        """Whose a name is in the end."""
        return self.owners.get(who, who)

    @cached_property
    def owners(self) -> dict[str, str]:
        """Device -> customer, by the logins."""
        return {f"v:{d.detail}": d.who for d in self.did.values() if d.kind == "login"}

    def people(self) -> set[str]:
        """Everybody there is in the end."""
        return {self.person(d.who) for d in self.did.values()}

    def members(self, segment: str, now_ms: int) -> set[str]:
        """Who must be in a segment of CONDITIONS at an instant."""
        if segment == VIPS:
            last: dict[str, tuple[int, int, str]] = {}
            for name, d in self.did.items():
                if d.kind == "group_assigned":
                    last[d.who] = max(last.get(d.who, (0, 0, "")), (d.at, hash_of(name), d.detail))
            return {who for who, (_, _, group) in last.items() if group == "vip"}
        totals: dict[str, int] = defaultdict(int)
        for d in self.did.values():
            if segment == VIEWERS and d.kind == "product_view":
                totals[self.person(d.who)] += 1
            elif segment == SPENDERS and d.kind == "order_placed":
                totals[self.person(d.who)] += d.amount
            elif segment == RECENT and d.kind == "add_to_cart" and now_ms - 7 * DAY_MS < d.at <= now_ms:
                totals[self.person(d.who)] += 1
        limit = {VIEWERS: 20, SPENDERS: 15_001, RECENT: 3}[segment]
        return {who for who, total in totals.items() if total >= limit}

    def beyond_money(self) -> set[str]:
        """People of more orders than are kept, whose sums nobody can know exactly."""
        orders: dict[str, int] = defaultdict(int)
        for d in self.did.values():
            orders[self.person(d.who)] += d.kind == "order_placed"
        return {who for who, count in orders.items() if count > KEPT}

    def walk_in(self) -> tuple[str, list[dict[str, Any]]]:
        """Somebody new who views 20 products and logs in: the device, and the events to hand in over HTTP."""
        name, now = f"walk{len(self.did)}", int(time.time() * 1000)
        acts = [Did(f"v:{name}", "product_view", now - 1000 + i) for i in range(20)]
        acts.append(Did(f"c:{name}", "login", now, detail=name))
        fresh = {f"{name}-{i}": d for i, d in enumerate(acts)}
        self.did.update(fresh)
        self.__dict__.pop("owners", None)
        return name, [event(i, d) for i, d in fresh.items()]


def _rows(most: int, rng: random.Random) -> list[Row]:
    """(visitor, kind, at_ms, amount): the newest of a recording where FAULT_EVENTS names one, else made up."""
    path = os.environ.get("FAULT_EVENTS")
    if path:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            found = [
                (row["visitor_id"], RECORDED[row["event_type"]], int(row["ts_ms"]), int(row["order_total_minor"] or 0))
                for row in csv.DictReader(file)
            ]
        return found[-most:]
    kinds = ["product_view"] * 6 + ["add_to_cart"] * 3 + ["remove_from_cart", "order_placed"]
    return [
        (f"s{int(rng.paretovariate(0.6)) % 900}", rng.choice(kinds), i * STEP_MS, rng.randrange(100, 9000))
        for i in range(most)
    ]


def _heavy(rows: list[Row], rng: random.Random) -> Iterator[Row]:
    for number, counts in enumerate(HEAVY):
        for kind, count in zip(("product_view", "order_placed", "add_to_cart"), counts, strict=True):
            for _ in range(count):
                yield f"h{number}{rng.choice('ab')}", kind, rng.choice(rows)[2] + 1, rng.randrange(100, 9000)


def _logins(visitors: list[str], times: list[int], rng: random.Random) -> Iterator[tuple[str, Did]]:
    """(device, what its customer did): every other device is somebody's, some have up to three, all of them log in somewhere."""
    owned = {v: f"c:c{v[:-1]}" for v in visitors if v.startswith("h")}
    others = [v for v in visitors if v not in owned and rng.random() < 0.5]
    while others:
        customer = f"c:c{others[-1]}"
        for _ in range(min(len(others), rng.choice((1, 1, 2, 3)))):
            owned[others.pop()] = customer
    for device, customer in owned.items():
        for _ in range(rng.choice((1, 1, 2, 3))):
            yield device, Did(customer, "login", rng.choice(times) + 2, detail=device)
        if rng.random() < 0.5:
            yield device, Did(customer, "group_assigned", rng.choice(times) + 3, detail=rng.choice(("vip", "retail")))


def history(most: int, seed: int) -> History:
    """A history that ends ten minutes ago, as a busy log has it: displaced, repeated, some logins and repeats much later."""
    rng, made = random.Random(seed), History()
    rows = _rows(most, rng)
    rows += _heavy(rows, rng)
    named = list(_logins(sorted({r[0] for r in rows}), [r[2] for r in rows], rng))
    owner = {device: d.who for device, d in named}
    done = [d for _, d in named]
    for visitor, kind, at, amount in rows:
        known = kind == "order_placed" and visitor in owner and rng.random() < 0.5
        done.append(Did(owner[visitor] if known else f"v:{visitor}", kind, at, amount))
    done.sort(key=lambda d: d.at)
    shift = int(time.time() * 1000) - 600_000 - done[-1].at
    queue = []
    for i, d in enumerate(done):
        name, d = f"h{i}", d._replace(at=d.at + shift)
        made.did[name] = d
        place = rng.uniform(i, len(done)) if d.kind == "login" and rng.random() < 0.3 else i + rng.uniform(0, DISPLACED)
        message = Message(TOPIC[d.kind], d.who[2:].encode(), json.dumps(event(name, d)).encode())
        queue.append((place, i, message))
        if rng.random() < REPEATED:
            made.repeated.add(name)
            again = rng.uniform(place, len(done)) if rng.random() < 0.3 else place + rng.uniform(0, DISPLACED)
            queue.append((again, i, message))
    made.messages = [message for _, _, message in sorted(queue)]
    return made


def event(name: str, d: Did) -> dict[str, Any]:
    """As a CloudEvent."""
    kind, _, who = d.who.partition(":")
    money, sku = {"amount": d.amount, "currency": "EUR"}, f"P{len(name) % 7}"
    data: dict[str, Any] = {
        "product_view": {"sku": sku},
        "order_placed": {"order_id": name, "status": "placed", "grand_total": money},
        "login": {"visitor_id": d.detail, "customer_id": who},
        "group_assigned": {"group": d.detail},
    }.get(d.kind, {"item": {"sku": sku, "quantity": 1, "price": money}})
    return {
        "specversion": "1.0",
        "id": name,
        "source": "history",
        "type": d.kind,
        "time": datetime.fromtimestamp(d.at / 1000, UTC).isoformat(),
        "subject": f"{'visitor' if kind == 'v' else 'customer'}:{who}",
        "data": data,
    }
