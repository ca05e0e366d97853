"""Conditions on a cart, and on a line: two vocabularies over the same tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conditions import Group, Leaf, LeafType, Node, Vocabulary, holds, parse
from conditions.context import comparison, comparison_json
from conditions.operators import NUMERIC, compare
from conditions.read import nearest
from conditions.tree import Fail
from conditions.values import number

from promo_svc.domain.cart import Line, Running

CART_FIELDS = ("subtotal", "quantity", "shipping", "line_items")
LINE_FIELDS = ("sku", "category", "price", "quantity", "row_total")


class LineField(LeafType):
    """{"line": field, op, value}: sku, category (a path matches everything below it), price, quantity, attributes.x."""

    key = "line"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        name = str(raw["line"])
        if name not in LINE_FIELDS and not name.startswith("attributes."):
            fail("/line", "unknown-field", f"{name!r} is not known of a line{nearest(name, LINE_FIELDS)}")
        return comparison(raw, "line", fail)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return comparison_json("line", params)

    def test(self, params: Any, facts: Line, now: int) -> bool:
        """See LeafType. Amounts are minor units."""
        name, op, literal = params
        if name == "category":
            return _in_category(op, facts.categories, literal)
        if name == "row_total":
            return compare(op, facts.row, literal)
        if name.startswith("attributes."):
            return compare(op, facts.attributes.get(name.removeprefix("attributes.")), literal)
        return compare(op, getattr(facts, name), literal)


def _in_category(op: str, paths: tuple[str, ...], literal: Any) -> bool:
    wanted = literal if isinstance(literal, tuple) else (literal,)
    inside = any(path == want or path.startswith(f"{want}/") for path in paths for want in wanted)
    return not inside if op in ("ne", "not_in") else inside


LINES = Vocabulary([LineField()])


class CartField(LeafType):
    """{"cart": field, op, value}: running amounts in minor units, with what stronger rules took already taken off."""

    key = "cart"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        if raw["cart"] not in CART_FIELDS:
            fail(
                "/cart",
                "unknown-field",
                f"{raw['cart']!r} is not known of a cart{nearest(str(raw['cart']), CART_FIELDS)}",
            )
        params = comparison(raw, "cart", fail)
        if params[1] not in NUMERIC or number(params[2]) is None:
            fail("/value", "wrong-type", "a number is needed")
        return params

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return comparison_json("cart", params)

    def seen(self, params: Any, facts: Running, now: int) -> int:
        """See LeafType."""
        lines = facts.request.lines
        if params[0] == "subtotal":
            return facts.subtotal()
        if params[0] == "quantity":
            return sum(line.quantity for line in lines)
        return facts.request.shipping if params[0] == "shipping" else len(lines)

    def test(self, params: Any, facts: Running, now: int) -> bool:
        """See LeafType."""
        return compare(params[1], self.seen(params, facts, now), params[2])


class Products(LeafType):
    """{"products": {measure: found | quantity | amount, op, value, where: line tree}} over the matching lines."""

    key = "products"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        body = raw["products"]
        if not isinstance(body, Mapping) or body.get("measure", "found") not in ("found", "quantity", "amount"):
            fail("/products/measure", "unknown-field", "measure is found, quantity or amount")
            return None
        measure = body.get("measure", "found")
        op, value = body.get("op", "gte"), number(body.get("value", 1))
        if op not in NUMERIC or value is None:
            fail("/products/value", "wrong-type", "products are compared with a number")
        tree = parse(body.get("where", {}), LINES)
        return measure, op, value, tree, dict(body)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"products": params[-1]}

    def seen(self, params: Any, facts: Running, now: int) -> int:
        """See LeafType."""
        lines = [(i, line) for i, line in enumerate(facts.request.lines) if holds(params[3], line, now)]
        if params[0] == "found":
            return len(lines)
        return sum(line.quantity if params[0] == "quantity" else facts.left(i) for i, line in lines)

    def test(self, params: Any, facts: Running, now: int) -> bool:
        """See LeafType."""
        return compare(params[1], self.seen(params, facts, now), params[2])


CART = Vocabulary([CartField(), Products()])


def missing_amount(node: Node, facts: Running, now: int) -> int | None:
    """What more the subtotal needs for the tree to hold, when that is all it lacks; None otherwise."""
    parts = node.children if isinstance(node, Group) and node.every and node.expect else (node,)
    failing = [p for p in parts if not holds(p, facts, now)]
    if len(failing) != 1 or not isinstance(failing[0], Leaf) or not isinstance(failing[0].type, CartField):
        return None
    name, op, literal = failing[0].params
    if name != "subtotal" or op not in ("gte", "gt"):
        return None
    return int(literal) - facts.subtotal() + (1 if op == "gt" else 0)
