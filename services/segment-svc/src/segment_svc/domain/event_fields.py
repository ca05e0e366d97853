"""Which fields the events have, and what each holds: the contracts' messages (a test compares), plus what is a code.

A custom event's fields are its shop's own: anything, except that well-known names of codes are codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from conditions.kinds import CATEGORY, CODE, NUMBER, OPEN, TEXT, Kind
from conditions.read import nearest, shown
from conditions.tree import Fail

Fields: TypeAlias = "Mapping[str, Kind] | None"

CUSTOM, MOST_NAME = "custom.", 200
LINE = {"sku": CODE, "name": TEXT, "category": CATEGORY, "quantity": NUMBER, "price": NUMBER}
ADDRESS = {"country": TEXT, "region": TEXT, "city": TEXT, "postcode": CODE, "street": TEXT, "company": TEXT}


def _of(prefix: str, fields: Mapping[str, Kind]) -> dict[str, Kind]:
    return {f"{prefix}.{name}": kind for name, kind in fields.items()}


CART = {"cart_id": CODE, "subtotal": NUMBER, "grand_total": NUMBER, "coupon": CODE, "currency": CODE}
EVENTS: dict[str, Mapping[str, Kind]] = {
    "product_view": {"sku": CODE, "name": TEXT, "category": CATEGORY, "brand": TEXT, "price": NUMBER, "currency": CODE},
    "category_view": {"category": CATEGORY},
    "page_view": {"path": TEXT, "title": TEXT, "referrer": TEXT},
    "search": {"query": TEXT, "results": NUMBER},
    # Of whole carts and lists only the newest keeps its lines: the condition `list` asks for those.
    "cart_update": CART,
    "wishlist_update": {},
    "add_to_cart": {**_of("item", LINE), "currency": CODE},
    "remove_from_cart": {**_of("item", LINE), "currency": CODE},
    "checkout_started": {"cart_id": CODE},
    "order_placed": {
        "order_id": CODE, "status": TEXT, "grand_total": NUMBER, "subtotal": NUMBER, "coupon": CODE, "currency": CODE,
        **_of("items", LINE), **_of("shipping_address", ADDRESS),
    },
    "order_status_changed": {"order_id": CODE, "status": TEXT},
    "refund_issued": {"order_id": CODE, "refund_id": CODE, "amount": NUMBER, "currency": CODE},
    "login": {"visitor_id": CODE, "customer_id": CODE},
    "logout": {"visitor_id": CODE},
    # What these say is kept as attributes, group and consent, not with the event.
    "identify": {},
    "group_assigned": {},
    "consent_changed": {},
}  # fmt: skip
# An order as it is now: with its current status, and where it was placed.
ORDER: Mapping[str, Kind] = {**EVENTS["order_placed"], "website": CODE}
TOTALS = ("grand_total", "subtotal")

CODE_WORDS = frozenset(
    (
        "id", "sku", "ean", "gtin", "upc", "isbn", "mpn", "zip", "postcode", "plz", "phone", "mobile", "fax", "coupon",
        "voucher", "iban", "currency", "phone_number", "order_number", "customer_number", "account_number", "card_number",
        "serial_number", "tracking_number",
    )
)  # fmt: skip
CODE_ENDINGS = ("_id", "_sku", "_code", "_zip", "_postcode", "_phone", "_coupon")
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def open_kind(path: str) -> Kind:
    """What a field a shop made up holds: a code if its last word is a well-known name of one."""
    word = CAMEL.sub("_", path.rpartition(".")[2]).lower()
    return CODE if word in CODE_WORDS or word.endswith(CODE_ENDINGS) else OPEN


def event_type(raw: object, pointer: str, fail: Fail) -> tuple[str, Fields]:
    """A type of events and its fields (None: a custom one's, which are open)."""
    if isinstance(raw, str):
        if raw in EVENTS:
            return raw, EVENTS[raw]
        if raw.startswith(CUSTOM) and len(CUSTOM) < len(raw) <= MOST_NAME:
            return raw, None
    hint = nearest(raw, EVENTS) or "; what a shop makes up itself is called custom.<name>"
    fail(pointer, "unknown-type", f"{shown(raw)} is not an event type{hint}")
    return "", None


def field_kind(fields: Fields, raw: object, pointer: str, fail: Fail) -> Kind | None:
    """What a field holds, or None after `fail`."""
    if isinstance(raw, str) and 0 < len(raw) <= MOST_NAME:
        if fields is None:
            return open_kind(raw)
        if raw in fields:
            return fields[raw]
    detail = f"{shown(raw)} is not a field here{nearest(raw, fields or ())}"
    fail(pointer, "unknown-field", detail if fields or fields is None else f"{detail}; such an event keeps no fields")
    return None
