"""What leaves ask about a person: a profile, indexed a little, for the length of one evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from segment_svc.domain.activity import unpack
from segment_svc.domain.amounts import units
from segment_svc.domain.cart import AMOUNTS, cart
from segment_svc.domain.log import Log
from segment_svc.domain.profile import NOTHING, Profile

if TYPE_CHECKING:
    from segment_svc.domain.leaves.where import Where

NOT_COUNTED = "cancelled"
ORDER_PARTS = ("order_placed", "order_status_changed", "refund_issued")


class Facts:
    """A profile under evaluation. `bits` are the segments decided so far in this pass.

    What is worked out of the profile is kept, under a name its maker chose, so the profile must not change meanwhile.
    """

    __slots__ = ("_cart", "_orders", "bits", "context", "kept", "key", "profile")

    def __init__(self, profile: Profile, key: str = "") -> None:
        self.profile, self.key, self.bits = profile, key, 0
        self.context: dict[str, Any] = {}
        self.kept: dict[str, Any] = {}
        self._cart: dict[str, Any] | None = None
        self._orders: list[dict[str, Any]] | None = None

    def instants(self, kind: str, websites: tuple[str, ...]) -> Sequence[int]:
        """When events of a type happened on the given websites (none given: all), oldest first."""
        log = self.profile.log.get(kind, NOTHING)
        return [log.at[i] for i in self._chosen(log, websites)] if websites else log.at

    def events(
        self, kind: str, websites: tuple[str, ...], *, newest_first: bool = False
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """(instant, properties) of events of a type on the given websites (none given: all)."""
        log = self.profile.log.get(kind, NOTHING)
        places = self._chosen(log, websites)
        return ((log.at[i], unpack(log.props[i])) for i in (reversed(places) if newest_first else places))

    def matching(self, kind: str, websites: tuple[str, ...], accept: Where) -> list[int]:
        """When events of a type that `accept` holds of happened, oldest first."""
        log = self.profile.log.get(kind, NOTHING)
        places = self._chosen(log, websites)
        if accept.needle:
            places = [i for i in places if accept.needle in log.props[i]]
        return [log.at[i] for i in places if accept.holds(unpack(log.props[i]))]

    def _chosen(self, log: Log, websites: tuple[str, ...]) -> Sequence[int]:
        if not websites:
            return range(len(log))
        sites = {number for number, name in enumerate(self.profile.sites) if name in websites}
        return [i for i, number in enumerate(log.sites) if number in sites]

    def cart(self) -> dict[str, Any]:
        """The current cart."""
        if self._cart is None:
            self._cart = cart(self.profile)
        return self._cart

    def orders(self, websites: tuple[str, ...]) -> list[dict[str, Any]]:
        """Orders with their current status and refunds, oldest first."""
        if "order_placed" not in self.profile.log:
            return []
        if self._orders is None:
            self._orders = _orders(self.profile)
        return [o for o in self._orders if o["website"] in websites] if websites else self._orders


def _orders(profile: Profile) -> list[dict[str, Any]]:
    orders: dict[Any, dict[str, Any]] = {}
    placed = profile.log.get("order_placed", NOTHING)
    for at, _, site, packed in placed.entries():
        order = unpack(packed)
        order["at"], order["refunds"], order["website"] = at, 0, profile.sites[site]
        order["status"] = order.get("status") or "placed"
        orders.setdefault(order.get("order_id"), order)
    for props in map(unpack, profile.log.get("order_status_changed", NOTHING).props):
        if props.get("order_id") in orders:
            orders[props["order_id"]]["status"] = props.get("status")
    for props in map(unpack, profile.log.get("refund_issued", NOTHING).props):
        if props.get("order_id") in orders:
            orders[props["order_id"]]["refunds"] += units(props.get("amount"))
    return list(orders.values())


def view(profile: Profile) -> dict[str, Any]:
    """What support may look at: counts per event type, attributes, cart and group; no raw history."""
    return {
        "kind": profile.kind,
        "group": profile.group,
        "cart": {name: float(part) if name in AMOUNTS else part for name, part in cart(profile).items()},
        "attributes": {
            n.removeprefix("attributes."): h[-1][2] for n, h in profile.registers.items() if n.startswith("attributes.")
        },
        "events": {kind: len(e) + profile.dropped.get(kind, (0, 0))[0] for kind, e in profile.log.items()},
        "pending": len(profile.pending),
    }
