"""The current cart: the last whole one, changed by later additions and removals; an order empties it."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from conditions.values import number

from segment_svc.domain.activity import unpack
from segment_svc.domain.amounts import decimal, units
from segment_svc.domain.profile import NOTHING, Profile

Change = tuple[int, int, dict[str, Any]]
CHANGES_IT = {"cart_update", "add_to_cart", "remove_from_cart"}
CART_PARTS = (*CHANGES_IT, "order_placed")
AMOUNTS = ("subtotal", "grand_total")
NO_CART = {"line_items": 0, "quantity": 0, "subtotal": 0, "grand_total": 0, "coupon": None}


def cart(profile: Profile) -> dict[str, Any]:
    """Lines, counts and amounts (exact, in the unit of the cart's currency) of the cart as the events leave it."""
    if CHANGES_IT.isdisjoint(profile.log):
        return {**NO_CART, "items": []}
    whole = profile.log.get("cart_update", NOTHING)
    emptied = max(profile.log.get("order_placed", NOTHING).at[-1:], default=0)
    since, lines, totals = emptied, [], {}
    if whole and whole.at[-1] >= emptied:
        since, totals = whole.at[-1], unpack(whole.props[-1])
        lines = [dict(line) for line in totals.get("items") or []]
    changes = sorted(_changes(profile, since), key=lambda change: change[0])
    for _, sign, item in changes:
        _change_line(lines, item, sign)
    subtotal = number(totals.get("subtotal"))
    if changes or subtotal is None:
        subtotal = decimal(sum(units(line.get("price")) * line.get("quantity", 1) for line in lines))
    grand = number(totals.get("grand_total")) if not changes else None
    return {
        "items": lines,
        "line_items": len(lines),
        "quantity": sum(line.get("quantity", 1) for line in lines),
        "subtotal": subtotal,
        "grand_total": subtotal if grand is None else grand,
        "coupon": totals.get("coupon"),
    }


def _changes(profile: Profile, since: int) -> list[Change]:
    """Additions and removals after an instant."""
    found: list[Change] = []
    for kind, sign in (("add_to_cart", 1), ("remove_from_cart", -1)):
        log = profile.log.get(kind, NOTHING)
        first = bisect_right(log.at, since)
        found += [
            (at, sign, unpack(props).get("item") or {})
            for at, props in zip(log.at[first:], log.props[first:], strict=True)
        ]
    return found


def _change_line(lines: list[dict[str, Any]], item: dict[str, Any], sign: int) -> None:
    quantity = sign * item.get("quantity", 1)
    for line in lines:
        if line.get("sku") == item.get("sku"):
            line["quantity"] = line.get("quantity", 1) + quantity
            if line["quantity"] <= 0:
                lines.remove(line)
            return
    if quantity > 0:
        lines.append({**item, "quantity": quantity})
