"""The seven use cases as a merchant would set them up: segments, slots, blocks and cart price rules."""

from __future__ import annotations

from typing import Any

SEGMENTS: list[dict[str, Any]] = [
    {
        "key": "big-cart",
        "name": "Cart over 100",
        "condition": {"cart": {"field": "subtotal", "op": "gt", "value": 100}},
    },
    {
        "key": "first-time-runners",
        "name": "Viewed more than 3 running shoes, never bought",
        "condition": {
            "all": [
                {
                    "events": {
                        "type": "product_view",
                        "count": {"op": "gt", "value": 3},
                        "window": {"last": "P7D"},
                        "where": {"field": "category", "op": "starts_with", "value": "shoes/running"},
                    }
                },
                {"orders": {"measure": "count", "op": "eq", "value": 0}},
            ]
        },
    },
    {
        "key": "vip",
        "name": "Lifetime value over 500",
        "applies_to": "customers",
        "condition": {"orders": {"measure": "net", "op": "gt", "value": 500}},
    },
    {
        "key": "reorder-due",
        "name": "Bought consumables 30 to 60 days ago",
        "applies_to": "customers",
        "condition": {
            "all": [
                {
                    "orders": {
                        "measure": "count",
                        "op": "gte",
                        "value": 1,
                        "window": {"last": "P60D"},
                        "where": {"field": "items.category", "op": "includes", "value": "consumables"},
                    }
                },
                {
                    "orders": {
                        "measure": "count",
                        "op": "eq",
                        "value": 0,
                        "window": {"last": "P30D"},
                        "where": {"field": "items.category", "op": "includes", "value": "consumables"},
                    }
                },
            ]
        },
    },
    {"key": "wholesale", "name": "Wholesale group", "condition": {"group": {"op": "in", "values": ["Wholesale"]}}},
    {"key": "bavaria", "name": "Visitors from Bavaria", "condition": {"context": "region", "op": "eq", "value": "BY"}},
    {
        "key": "returning",
        "name": "Returning visitors",
        "condition": {"events": {"type": "page_view", "count": {"op": "gte", "value": 2}}},
    },
]


def _content(kind: str, props: dict[str, str]) -> dict[str, Any]:
    return {"*": {"schemaVersion": 1, "blocks": [{"id": "main", "type": kind, "props": props}]}}


def _banner(title: str, text: str = "") -> dict[str, Any]:
    return _content("banner", {"title": title, "text": text})


SLOTS: list[dict[str, Any]] = [
    {"key": "home.hero", "title": "Home, hero", "default": _banner("Welcome", "Gifts for every occasion")},
    {"key": "home.note", "title": "Home, note", "default": _banner("New here?", "Have a look around")},
    {"key": "home.shipping", "title": "Home, shipping", "default": _banner("Order by 14:00, shipped today")},
    {"key": "product.offer", "title": "Product, offer", "kind": "product", "default": _banner("Free returns")},
    {"key": "cart.top", "title": "Cart, top", "kind": "cart", "default": _banner("Free shipping over 100.00")},
]


def _block(key: str, slot: str, segment: str, content: dict[str, Any], priority: int = 100) -> dict[str, Any]:
    audience = {"any_of": [segment]}
    return {"key": key, "title": key, "slots": [slot], "audience": audience, "content": content, "priority": priority}


BLOCKS: list[dict[str, Any]] = [
    _block("free-shipping", "cart.top", "big-cart", _banner("Shipping is on us", "Your cart is over 100.00")),
    _block("runners-ten", "product.offer", "first-time-runners", _banner("10 % off your first pair of running shoes")),
    _block("vip", "home.hero", "vip", _banner("Welcome back, VIP"), 10),
    _block("reorder", "home.hero", "reorder-due", _banner("Time to restock?", "Order again in one click"), 20),
    _block("volume", "home.hero", "wholesale", _banner("Volume prices", "15 % off from 10 pieces"), 5),
    _block("bavaria", "home.shipping", "bavaria", _banner("Bavaria: order by 17:00, there tomorrow")),
    _block("welcome-back", "home.note", "returning", _banner("Good to see you again")),
]

RULES: list[dict[str, Any]] = [
    {
        "key": "free-shipping",
        "name": "Free shipping over 100",
        "all_groups": True,
        "currency": "EUR",
        "condition": {"cart": "subtotal", "op": "gt", "value": 10_000},
        "action": {"type": "free_shipping"},
    },
    {
        "key": "runners-ten",
        "name": "10 % for first-time runners",
        "all_groups": True,
        "segments": {"any_of": ["first-time-runners"]},
        "filter": {"line": "category", "op": "eq", "value": "shoes/running"},
        "action": {"type": "percent", "value": 10},
    },
    {
        "key": "volume",
        "name": "Wholesale volume prices",
        "groups": ["Wholesale"],
        "filter": {"line": "quantity", "op": "gte", "value": 10},
        "action": {"type": "percent", "value": 15},
    },
]
