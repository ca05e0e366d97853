"""Conditions on a cart, and on a line: two vocabularies over the same tree. Amounts are minor units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Any

from conditions import Group, Invalid, Leaf, LeafType, Node, Vocabulary, holds, leaves, parse, to_json
from conditions.context import comparison, comparison_json
from conditions.kinds import AMOUNT, CATEGORY, CODE, OPEN, Kind, matcher_for
from conditions.read import nearest, only, shown
from conditions.tree import Fail

from promo_svc.domain.cart import MOST_TOTAL, Line, Running

MOST_NAME = 100
ATTRIBUTE = "attributes."
LINE_FIELDS: dict[str, Kind] = {
    "sku": CODE, "category": CATEGORY, "price": AMOUNT, "quantity": AMOUNT, "row_total": AMOUNT,
}  # fmt: skip
CART_FIELDS: dict[str, Callable[[Running], int]] = {
    "subtotal": lambda facts: facts.subtotal,
    "initial_subtotal": lambda facts: facts.request.subtotal,
    "quantity": lambda facts: sum(line.quantity for line in facts.request.lines),
    "line_items": lambda facts: len(facts.request.lines),
    "shipping": lambda facts: facts.request.shipping,
}
MEASURES: dict[str, Callable[[Running, int], int]] = {
    "found": lambda facts, index: 1,
    "quantity": lambda facts, index: facts.request.lines[index].quantity,
    "amount": lambda facts, index: facts.left[index],
}
MONEY = frozenset(("subtotal", "initial_subtotal", "shipping", "amount", "price", "row_total"))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field (or a measure of the lines `where` holds for; None: all) compared with a literal."""

    name: str
    op: str
    literal: Any
    matches: Callable[[Any], bool] = field(compare=False)
    where: Node | None = None


def _compared(raw: Mapping[str, Any], key: str, kind: Kind, fail: Fail, where: Node | None = None) -> Comparison | None:
    faults: list[str] = []

    def failing(pointer: str, code: str, detail: str) -> None:
        faults.append(code)
        fail(pointer, code, detail)

    found = comparison(raw, key, failing, kind=kind)
    return None if faults else Comparison(*found, matcher_for(kind, *found[1:]), where)


def _unknown(word: Any, what: str, known: Mapping[str, Any]) -> str:
    return f"{shown(word)} is not known of {what}{nearest(word, known)}"


class LineField(LeafType):
    """{"line": field, op, value}: sku, category (holds for what is below the path), price, quantity, row_total, attributes.x."""

    key = "line"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        name = raw["line"]
        if isinstance(name, str) and len(ATTRIBUTE) < len(name) <= MOST_NAME and name.startswith(ATTRIBUTE):
            return _compared(raw, "line", OPEN, fail)
        if not isinstance(name, str) or name not in LINE_FIELDS:
            fail("/line", "unknown-field", _unknown(name, "a line", LINE_FIELDS))
            return None
        return _compared(raw, "line", LINE_FIELDS[name], fail)

    def json(self, params: Comparison) -> dict[str, Any]:
        """See LeafType."""
        return comparison_json("line", (params.name, params.op, params.literal))

    def seen(self, params: Comparison, facts: Line, now: int) -> Any:
        """See LeafType."""
        name = params.name
        if name == "category":
            return facts.categories
        if name == "row_total":
            return facts.row
        return facts.attributes.get(name.removeprefix(ATTRIBUTE)) if "." in name else getattr(facts, name)

    def test(self, params: Comparison, facts: Line, now: int) -> bool:
        """See LeafType."""
        return params.matches(self.seen(params, facts, now))


LINES = Vocabulary([LineField()])


class CartField(LeafType):
    """{"cart": field, op, value}: subtotal (running: what stronger rules took is off), initial_subtotal (before any
    discount), quantity (units), line_items, shipping."""

    key = "cart"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        if not isinstance(raw["cart"], str) or raw["cart"] not in CART_FIELDS:
            fail("/cart", "unknown-field", _unknown(raw["cart"], "a cart", CART_FIELDS))
            return None
        return _compared(raw, "cart", AMOUNT, fail)

    def json(self, params: Comparison) -> dict[str, Any]:
        """See LeafType."""
        return comparison_json("cart", (params.name, params.op, params.literal))

    def seen(self, params: Comparison, facts: Running, now: int) -> int:
        """See LeafType."""
        return CART_FIELDS[params.name](facts)

    def test(self, params: Comparison, facts: Running, now: int) -> bool:
        """See LeafType."""
        return params.matches(self.seen(params, facts, now))


class Products(LeafType):
    """{"products": {measure: found | quantity | amount, op, value, where: line tree}}: how many lines, how many units or
    what is left of their amount, over the lines `where` holds for. Without it: all; the measure is found, op and value gte 1."""

    key = "products"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = raw["products"]
        only(raw, ("products",), fail)
        if not isinstance(body, Mapping):
            fail("/products", "wrong-type", "products is an object: measure, op, value, where")
            return None
        only(body, ("measure", "op", "value", "where"), fail, "/products")
        measure, where = body.get("measure", "found"), None
        if not isinstance(measure, str) or measure not in MEASURES:
            fail("/products/measure", "unknown-field", _unknown(measure, "products", MEASURES))
            return None
        if "where" in body:
            try:
                where = parse(body["where"], LINES)
            except Invalid as error:
                for fault in error.faults:
                    fail(f"/products/where{fault.pointer}", fault.code, fault.detail)
        compared = {"measure": measure, "op": body.get("op", "gte"), "value": body.get("value", 1)}
        return _compared(compared, "measure", AMOUNT, lambda at, *why: fail(f"/products{at}", *why), where)

    def json(self, params: Comparison) -> dict[str, Any]:
        """See LeafType."""
        body = comparison_json("measure", (params.name, params.op, params.literal))
        return {"products": body if params.where is None else {**body, "where": to_json(params.where)}}

    def seen(self, params: Comparison, facts: Running, now: int) -> int:
        """See LeafType."""
        measure, where = MEASURES[params.name], params.where
        return sum(measure(facts, i) for i, line in facts.lines() if where is None or holds(where, line, now))

    def test(self, params: Comparison, facts: Running, now: int) -> bool:
        """See LeafType."""
        return params.matches(self.seen(params, facts, now))


CART = Vocabulary([CartField(), Products()])


def conditions(node: Node) -> Iterator[Leaf]:
    """The conditions of a tree, those of its `where` trees included."""
    for leaf in leaves(node):
        yield leaf
        if isinstance(leaf.type, Products) and leaf.params.where is not None:
            yield from conditions(leaf.params.where)


def unmet(node: Node, facts: Running, now: int) -> list[Node]:
    """The conditions that do not hold, of those that all must; none when the tree holds."""
    parts = node.children if isinstance(node, Group) and node.every and node.expect else (node,)
    return [part for part in parts if not holds(part, facts, now)]


def missing_amount(failing: Sequence[Node], facts: Running) -> int | None:
    """What more the subtotal needs, when that is all that is unmet and a cart may have it; else None."""
    if len(failing) != 1 or not isinstance(failing[0], Leaf) or not isinstance(failing[0].type, CartField):
        return None
    params = failing[0].params
    if params.name not in ("subtotal", "initial_subtotal") or params.op not in ("gte", "gt"):
        return None
    wanted = ceil(params.literal) if params.op == "gte" else floor(params.literal) + 1
    return wanted - CART_FIELDS[params.name](facts) if wanted <= MOST_TOTAL else None
