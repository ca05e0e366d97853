"""A cart as far as it has to be right to be priced without promotions; what rules look at is promo-svc's to check."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

FIELDS = ("lines", "currency", "shipping", "coupons")
MOST_LINES, MOST_ID, MOST_COUPONS, MOST_FAULTS = 500, 200, 50, 50
MOST_AMOUNT, MOST_QUANTITY, MOST_TOTAL = 10**12, 1_000_000, 9 * 10**15
Fault = tuple[str, str]


def faults(body: Mapping[str, Any], currencies: Container[str]) -> list[Fault]:
    """(pointer, detail) of what is wrong; the first MOST_FAULTS. `currencies`: those there are."""
    lines, coupons, currency = body.get("lines"), body.get("coupons", []), body.get("currency", "EUR")
    found: list[Fault] = []
    if not isinstance(lines, list) or len(lines) > MOST_LINES:
        found.append(("/lines", f"is a list of up to {MOST_LINES} lines"))
    else:
        found += [(f"/lines/{i}{at}", detail) for i, line in enumerate(lines) for at, detail in _of_line(line)]
    if not isinstance(currency, str) or currency not in currencies:
        found.append(("/currency", "is the ISO 4217 code of a currency"))
    if not _is_whole(body.get("shipping", 0), 0, MOST_AMOUNT):
        found.append(("/shipping", f"is a whole number of minor units, 0 to {MOST_AMOUNT:,}"))
    if not isinstance(coupons, list) or len(coupons) > MOST_COUPONS or not all(isinstance(c, str) for c in coupons):
        found.append(("/coupons", f"is a list of up to {MOST_COUPONS} texts"))
    if not found and plain(body)["grand_total"] > MOST_TOTAL:
        found.append(("/lines", f"a cart with its shipping comes to at most {MOST_TOTAL:,} minor units"))
    return found[:MOST_FAULTS]


def plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """A cart without faults with its own prices, as promo-svc answers one for which there is no rule."""
    lines = [_priced(line) for line in body["lines"]]
    subtotal, shipping = sum(line["row_total"] for line in lines), body.get("shipping", 0)
    return {
        "currency": body.get("currency", "EUR"),
        "lines": lines,
        "subtotal": subtotal,
        "items_discount": 0,
        "shipping": shipping,
        "shipping_discount": 0,
        "discount": 0,
        "grand_total": subtotal + shipping,
        "applied": [],
        "trace": [],
        "hints": [],
    }


def _priced(line: Mapping[str, Any]) -> dict[str, Any]:
    price, quantity = line["price"], line.get("quantity", 1)
    row = price * quantity
    return {
        "id": line["id"], "price": price, "quantity": quantity, "row_total": row, "discount": 0, "final": row, "rules": [],
    }  # fmt: skip


def _of_line(line: Any) -> Iterator[Fault]:
    if not isinstance(line, dict):
        yield "", "is an object"
        return
    if not isinstance(line.get("id"), str) or not 0 < len(line["id"]) <= MOST_ID:
        yield "/id", f"is a text of 1 to {MOST_ID} characters"
    if not _is_whole(line.get("price"), 0, MOST_AMOUNT):
        yield "/price", f"is a whole number of minor units, 0 to {MOST_AMOUNT:,}"
    if not _is_whole(line.get("quantity", 1), 1, MOST_QUANTITY):
        yield "/quantity", f"is a whole number, 1 to {MOST_QUANTITY:,}"


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most
