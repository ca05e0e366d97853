"""Promotion cases through the evaluator, in process. What a rule cannot say is unsupported, by name."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from promo_svc.domain.cart import Line, Request
from promo_svc.domain.evaluate import RuleSet, evaluate
from promo_svc.domain.rule import rule_of

from tests.conformance.report import Report, Unsupported

ACTIONS = {"percent_off_unit": "percent", "amount_off_unit": "fixed_unit", "amount_off_cart": "fixed_cart"}
RULE_FIELDS = {"id", "priority", "stop", "action", "coupon", "groups", "when", "filter", "name", "label"}
CART_FIELDS = {"lines", "customer_group", "coupons", "shipping"}
LINE_FIELDS = {"id", "price", "qty", "sku", "categories", "subtotal"}
WHEN = {
    "subtotal_gte": "subtotal",
    "running_subtotal_gte": "subtotal",
    "cart_qty_gte": "quantity",
    "cart_qty_gt": "quantity",
}
KNOWN = {
    "line_discounts",
    "cart_discount",
    "items_discount",
    "shipping_discount",
    "grand_total",
    "applied",
    "rule_line_discounts",
}


def minor(text: Any) -> int:
    """Cents of a decimal."""
    value = Decimal(str(text)) * 100
    if value != value.to_integral_value():
        raise Unsupported("amounts below a cent")
    return int(value)


def _only(found: Mapping[str, Any], known: set[str], what: str) -> None:
    for name, value in found.items():
        if name not in known and value not in (None, False, [], {}):
            raise Unsupported(f"{what} {name}")


def _rule(raw: Mapping[str, Any], subtotal: int) -> dict[str, Any]:
    _only(raw, RULE_FIELDS, "rule field")
    action = raw["action"]
    if action["type"] not in ACTIONS:
        raise Unsupported(f"action {action['type']}")
    _only(action, {"type", "value", "max_qty", "step"}, "modifier")
    kind = ACTIONS[action["type"]]
    value = action.get("value", 0)
    made: dict[str, Any] = {"type": kind, "value": str(value) if kind == "percent" else minor(value)}
    made |= {"max_quantity": int(action.get("max_qty") or 0), "step": int(action.get("step") or 0)}
    body: dict[str, Any] = {
        "name": raw["id"],
        "priority": raw.get("priority", 0),
        "stop": raw.get("stop", False),
        "action": made,
    }
    body |= {"all_groups": "groups" not in raw, "groups": raw.get("groups") or [], "coupon": raw.get("coupon") or ""}
    return {**body, "condition": _when(raw.get("when") or {}, subtotal), "filter": _filter(raw.get("filter") or {})}


def _when(raw: Mapping[str, Any], subtotal: int) -> dict[str, Any] | None:
    parts = []
    for name, value in raw.items():
        if name not in WHEN:
            raise Unsupported(f"when {name}")
        number = minor(value) if WHEN[name] == "subtotal" else float(value)
        if name == "subtotal_gte" and number <= subtotal:
            continue  # the case means the subtotal before any discount; the evaluator's is the running one
        parts.append({"cart": WHEN[name], "op": "gt" if name.endswith("_gt") else "gte", "value": number})
    return {"all": parts} if parts else None


def _filter(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    parts: list[dict[str, Any]] = []
    for name, value in raw.items():
        if name in ("sku", "category"):
            parts.append({"line": name, "op": "in", "value": value if isinstance(value, list) else [value]})
        elif name == "price_gte":
            parts.append({"line": "price", "op": "gte", "value": minor(value)})
        elif name == "price_between":
            parts += [
                {"line": "price", "op": op, "value": minor(v)} for op, v in zip(("gte", "lte"), value, strict=True)
            ]
        elif name == "none" and value:
            parts.append({"line": "quantity", "op": "lt", "value": 0})
        else:
            raise Unsupported(f"filter {name}")
    return {"all": parts} if parts else None


def _request(cart: Mapping[str, Any]) -> Request:
    _only(cart, CART_FIELDS, "cart field")
    lines = []
    for raw in cart["lines"]:
        _only(raw, LINE_FIELDS, "line field")
        quantity = Decimal(str(raw.get("qty", 1)))
        if quantity != quantity.to_integral_value():
            raise Unsupported("fractional quantity")
        price = minor(raw["price"]) if "price" in raw else minor(Decimal(str(raw["subtotal"])) / quantity)
        lines.append(Line(str(raw["id"]), price, int(quantity), raw.get("sku", ""), tuple(raw.get("categories") or ())))
    coupons = tuple(cart.get("coupons") or ())
    return Request(
        "main",
        0,
        tuple(lines),
        group=cart.get("customer_group") or "guest",
        coupons=coupons,
        shipping=minor(cart.get("shipping") or 0),
    )


def _play(case: Mapping[str, Any]) -> str:
    if case.get("kind", "cart") != "cart" or case.get("tax") or case.get("options"):
        raise Unsupported(f"kind {case.get('kind')}" if case.get("kind", "cart") != "cart" else "tax or options")
    bodies = sorted(enumerate(case["rules"]), key=lambda item: item[1].get("priority", 0))
    rules = []
    request = _request(case["cart"])
    subtotal = sum(line.row for line in request.lines)
    for number, raw in bodies:
        body = _rule(raw, subtotal)
        rules.append(rule_of(number, raw["id"], 1, body))
    found = evaluate(RuleSet.compile(1, rules), request)
    return _compare(case["expect"], found, Decimal(str(case.get("tolerance") or 0)) * 100)


def _compare(expect: Mapping[str, Any], found: Mapping[str, Any], tolerance: Decimal) -> str:
    lacking = [name for name in expect if name not in KNOWN | {"note"}]
    if lacking:
        raise Unsupported(f"expectation {lacking[0]}")
    lines = {line["id"]: line for line in found["lines"]}
    pairs = [(name, expect[n], found[name]) for n, name in (
        ("cart_discount", "items_discount"), ("items_discount", "items_discount"), ("shipping_discount", "shipping_discount"),
        ("grand_total", "grand_total"),
    ) if n in expect]  # fmt: skip
    pairs += [
        (f"line {i}", v, lines[i]["discount"]) for i, v in (expect.get("line_discounts") or {}).items() if i in lines
    ]
    for rule, parts in (expect.get("rule_line_discounts") or {}).items():
        for line, value in parts.items():
            got = sum(r["amount"] for r in lines[line]["rules"] if r["rule"] == rule)
            pairs.append((f"{rule} on {line}", value, got))
    for name, wanted, got in pairs:
        if abs(Decimal(str(wanted)) * 100 - got) > tolerance:
            return f"{name}: {got / 100:.2f}, not {wanted}"
    if "applied" in expect and [a["rule"] for a in found["applied"]] != list(expect["applied"]):
        return f"applied {[a['rule'] for a in found['applied']]}, not {expect['applied']}"
    return ""


def run(cases: list[dict[str, Any]]) -> Report:
    """Evaluate every case."""
    report = Report()
    for case in cases:
        tags = [case.get("semantics") or "common"]
        try:
            difference = _play(case)
            report.add(case["id"], tags, "failed" if difference else "passed", difference)
        except Unsupported as lacking:
            report.add(case["id"], tags, "unsupported", str(lacking))
    return report
