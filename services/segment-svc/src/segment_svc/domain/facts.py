"""What leaves ask about a person: a profile, indexed a little, for the length of one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from segment_svc.domain import profile as people
from segment_svc.domain.profile import Entry, Profile

NOT_COUNTED = "cancelled"


T = TypeVar("T")


class Facts:
    """A profile under evaluation. `bits` are the segments decided so far in this pass.

    What is worked out of the profile is kept, so the profile must not change while its facts are in use.
    """

    __slots__ = ("_cart", "_kept", "_orders", "bits", "context", "key", "profile")

    def __init__(self, profile: Profile, key: str = "") -> None:
        self.profile, self.key, self.bits = profile, key, 0
        self.context: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}
        self._cart: dict[str, Any] | None = None
        self._orders: list[dict[str, Any]] | None = None

    def once(self, name: str, work_out: Callable[[Facts], T]) -> T:
        """The result of `work_out`, the first time; the same one for that name from then on."""
        if name not in self._kept:
            self._kept[name] = work_out(self)
        found: T = self._kept[name]
        return found

    def entries(self, kind: str, websites: tuple[str, ...]) -> list[Entry]:
        """Events of a type, oldest first, of the given websites (none given: all)."""
        found = self.profile.log.get(kind, [])
        return [e for e in found if e[2] in websites] if websites else found

    def cart(self) -> dict[str, Any]:
        """The current cart."""
        if self._cart is None:
            self._cart = people.cart(self.profile)
        return self._cart

    def orders(self, websites: tuple[str, ...]) -> list[dict[str, Any]]:
        """Orders with their current status and refunds, oldest first."""
        if self._orders is None:
            self._orders = _orders(self.profile)
        return [o for o in self._orders if o["website"] in websites] if websites else self._orders


def _orders(profile: Profile) -> list[dict[str, Any]]:
    orders: dict[Any, dict[str, Any]] = {}
    for at, _, website, props in profile.log.get("order_placed", []):
        base = {"status": "placed", "website": website, **{k: v for k, v in props.items() if v not in (None, "")}}
        orders.setdefault(props.get("order_id"), {**base, "at": at, "refunds": 0})
    for _, _, _, props in profile.log.get("order_status_changed", []):
        if props.get("order_id") in orders:
            orders[props["order_id"]]["status"] = props.get("status")
    for _, _, _, props in profile.log.get("refund_issued", []):
        if props.get("order_id") in orders:
            orders[props["order_id"]]["refunds"] += units(props.get("amount"))
    return sorted(orders.values(), key=lambda o: o["at"])


def units(amount: Any) -> int:
    """A decimal amount as a whole number of ten-thousandths, so that sums are exact."""
    return round(float(amount or 0) * 10_000)
