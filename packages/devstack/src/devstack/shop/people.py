"""Who one can be in the example shop: guests, and customers whose orders and group the seed publishes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Order:
    """One line; `total` in cents."""

    sku: str
    category: str
    total: int
    days_ago: int


@dataclass(frozen=True, slots=True)
class Person:
    """A customer when there is an `id`; `region` is what a shop behind a real edge knows of where they are."""

    label: str
    id: str = ""
    group: str = ""
    region: str = ""
    orders: tuple[Order, ...] = ()


PEOPLE = {
    "guest": Person("A guest"),
    "bavaria": Person("A guest from Bavaria", region="BY"),
    "vip": Person("Vera, who bought for 600.00", "demo-vip", orders=(Order("VASE-1", "gifts", 60_000, 90),)),
    "wholesale": Person("Walter, wholesale", "demo-wholesale", group="Wholesale"),
    "reorder": Person(
        "Rita, who bought candles 45 days ago", "demo-reorder", orders=(Order("CANDLE-1", "consumables", 100, 45),)
    ),
}
