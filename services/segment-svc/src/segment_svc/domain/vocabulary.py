"""Every condition a segment may use, bound to its websites and the shop's time zone."""

from __future__ import annotations

from collections.abc import Mapping
from zoneinfo import ZoneInfo

from conditions import Vocabulary
from conditions.context import Context

from segment_svc.domain.leaves.behaviour import Cart, Events, LastEvent, ProductList
from segment_svc.domain.leaves.orders import DaysSince, Orders
from segment_svc.domain.leaves.person import Attribute, CustomerGroup, Kind, Listed, Segment


def vocabulary(websites: tuple[str, ...], zone: ZoneInfo, bits: Mapping[str, int]) -> Vocabulary:
    """What a merchant may write; `bits` says which bit each other segment has."""
    return Vocabulary(
        [
            Attribute(zone), CustomerGroup(), Segment(bits), Events(websites, zone), LastEvent(websites), Orders(websites, zone),
            DaysSince(websites, zone), Cart(), ProductList(), Context(),
        ]
    )  # fmt: skip


GUARDS = {t.key: t for t in (Kind(), Listed())}
