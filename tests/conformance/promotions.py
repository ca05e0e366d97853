"""Promotion cases through what a merchant's save and a shop's cart go through. Translates and nothing else: what a rule or a
cart of ours cannot say, or the product refuses, is unsupported, by name; what can be said is judged in full."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from chassis.documents import Document
from chassis.problems import Problem
from promo_svc.domain.rule import Rule
from promo_svc.flows.save_rule import run as run_on_probes
from promo_svc.flows.save_rule import verify
from promo_svc.reading import read_cart
from promo_svc.schemas import NewCartRule
from promo_svc.snapshot import KIND, build
from pydantic import ValidationError

from tests.conformance.report import Report, Unsupported

AT_MS = 1_800_000_000_000
ACTIONS = {"percent_off_unit": "percent", "amount_off_unit": "fixed_unit", "amount_off_cart": "fixed_cart"}
RULE_FIELDS = {
    "id",
    "priority",
    "stop",
    "action",
    "currency",
    "coupon",
    "groups",
    "segments",
    "when",
    "filter",
    "name",
    "label",
}
CART_FIELDS = {"lines", "customer_group", "segments", "coupons", "shipping", "currency"}
LINE_FIELDS = {"id", "price", "qty", "sku", "categories", "attributes", "subtotal"}
WHEN = {
    "subtotal_gte": ("initial_subtotal", "gte"),
    "subtotal_eq": ("initial_subtotal", "eq"),
    "running_subtotal_gte": ("subtotal", "gte"),
    "cart_qty_gte": ("quantity", "gte"),
    "cart_qty_gt": ("quantity", "gt"),
}
TOTALS = {
    "cart_discount": "items_discount",
    "items_discount": "items_discount",
    "shipping_discount": "shipping_discount",
    "grand_total": "grand_total",
}
JUDGED = {*TOTALS, "subtotal_after", "line_discounts", "rule_line_discounts", "applied", "applied_by_line", "note"}


def plain(value: Decimal) -> int | float:
    """A JSON number; whether it may have a fraction is the product's to say."""
    return int(value) if value == value.to_integral_value() else float(value)


def minor(text: Any) -> int | float:
    """Cents of a decimal."""
    return plain(Decimal(str(text)) * 100)


def _only(found: Mapping[str, Any], known: set[str], what: str) -> None:
    for name, value in found.items():
        if name not in known and value not in (None, False, [], {}):
            raise Unsupported(f"{what} {name}")


def _rule(raw: Mapping[str, Any], number: int, currency: str) -> dict[str, Any]:
    _only(raw, RULE_FIELDS, "rule field")
    segments = raw.get("segments") or {}
    return {
        "key": f"r{number}",
        "name": raw["id"],
        "status": "live",
        "priority": raw.get("priority", 0),
        "stop": raw.get("stop", False),
        "currency": raw.get("currency", currency),
        "coupon": raw.get("coupon") or "",
        "all_groups": "groups" not in raw,
        "groups": raw.get("groups") or [],
        "segments": segments if isinstance(segments, Mapping) else {"any_of": segments},
        "condition": _all(_when(raw.get("when") or {})),
        "filter": _all(_filter(raw.get("filter") or {})),
        "action": _action(raw["action"]),
    }


def _action(raw: Mapping[str, Any]) -> dict[str, Any]:
    kind, value = raw["type"], raw.get("value", "0")
    if kind == "percent_off_shipping" and Decimal(str(value)) == 100:
        _only(raw, {"type", "value"}, "modifier")
        return {"type": "free_shipping"}
    if kind not in ACTIONS:
        raise Unsupported(f"action {kind}")
    _only(raw, {"type", "value", "max_qty", "step"}, "modifier")
    counts = {"max_quantity": raw.get("max_qty"), "step": raw.get("step")}
    whole = {name: plain(Decimal(str(count))) for name, count in counts.items() if count}
    return {"type": ACTIONS[kind], "value": str(value) if kind.startswith("percent") else minor(value), **whole}


def _all(parts: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    found = list(parts)
    return {"all": found} if found else None


def _when(raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, value in raw.items():
        if name in WHEN:
            field, op = WHEN[name]
            number = minor(value) if "subtotal" in field else plain(Decimal(str(value)))
            yield {"cart": field, "op": op, "value": number}
        elif name == "any_line_qty_gte":
            line = {"line": "quantity", "op": "gte", "value": plain(Decimal(str(value)))}
            yield {"products": {"measure": "found", "where": line}}
        elif name == "category_subtotal_gte":
            yield _products({"measure": "amount", "value": value["amount"], "filter": {"category": value["category"]}})
        elif name == "products":
            yield _products(value)
        else:
            raise Unsupported(f"when {name}")


def _products(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Our own cases say `products {measure, op, value, filter}`: like the condition, with decimals and a filter."""
    value = minor(raw["value"]) if raw["measure"] == "amount" else plain(Decimal(str(raw["value"])))
    body = {"measure": raw["measure"], "op": raw.get("op", "gte"), "value": value}
    where = _all(_filter(raw.get("filter") or {}))
    return {"products": {**body, "where": where} if where else body}


def _filter(raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, value in raw.items():
        if name in ("sku", "category"):
            yield {"line": name, "op": "in", "value": value if isinstance(value, list) else [value]}
        elif name == "price_gte":
            yield {"line": "price", "op": "gte", "value": minor(value)}
        elif name == "price_between":
            for op, bound in zip(("gte", "lte"), value, strict=True):
                yield {"line": "price", "op": op, "value": minor(bound)}
        elif name == "none" and value:
            yield {"line": "quantity", "op": "lt", "value": 0}
        elif name == "line":
            yield value
        else:
            raise Unsupported(f"filter {name}")


def _cart(cart: Mapping[str, Any]) -> dict[str, Any]:
    _only(cart, CART_FIELDS, "cart field")
    lines = []
    for raw in cart["lines"]:
        _only(raw, LINE_FIELDS, "line field")
        quantity = Decimal(str(raw.get("qty", 1)))
        price = minor(raw["price"]) if "price" in raw else minor(Decimal(str(raw["subtotal"])) / quantity)
        line = {"id": str(raw["id"]), "price": price, "quantity": plain(quantity)}
        lines.append(line | {name: raw[name] for name in ("sku", "categories", "attributes") if raw.get(name)})
    body = {"website": "main", "at_ms": AT_MS, "lines": lines, "shipping": minor(cart.get("shipping") or 0)}
    body |= {"group": cart.get("customer_group") or "guest", "currency": cart.get("currency") or "EUR"}
    return {**body, "coupons": cart.get("coupons") or [], "segments": cart.get("segments") or []}


def _saved(rules: list[Mapping[str, Any]], currency: str) -> list[Document]:
    """The rules as they are stored after a save: read, checked, run on made-up carts. In list order, oldest first.

    A rule that does not say its currency has that of the cart of its case."""
    saved: list[Document] = []
    for number, raw in enumerate(rules, 1):
        body = NewCartRule.model_validate(_rule(raw, number, currency))
        document = Document(number, KIND, body.key, 1, body.model_dump(mode="json", exclude={"key"}))
        verify(document.body)
        run_on_probes(body.key, document.body, _published(saved), AT_MS)
        saved.append(document)
    return saved


def _published(saved: list[Document]) -> tuple[Rule, ...]:
    return build(1, saved, []).rules.rules


def play(case: Mapping[str, Any]) -> list[str]:
    """Every difference between what a case expects and what came out. Raises Unsupported."""
    if case.get("kind", "cart") != "cart":
        raise Unsupported(f"kind {case['kind']}")
    for name in ("tax", "options"):
        if case.get(name):
            raise Unsupported(name)
    try:
        cart = _cart(case["cart"])
        saved = _saved(case["rules"], cart["currency"])
        asked = read_cart(json.dumps(cart).encode())
    except ValidationError as error:
        raise Unsupported(f"a rule is refused: {error.errors()[0]['loc']} {error.errors()[0]['msg']}") from None
    except Problem as problem:
        first = problem.errors[0] if problem.errors else {"pointer": "", "detail": problem.title}
        raise Unsupported(f"refused: {first['pointer']} {first['detail']}") from None
    found = json.loads(json.dumps(build(1, saved, []).evaluate(asked)))
    names = {document.key: document.body["name"] for document in saved}
    tolerance = Decimal(str(case.get("tolerance") or 0)) * 100
    differences = [*_amounts(case, found, names, tolerance), *_names(case["expect"], found, names)]
    lacking = sorted(set(case["expect"]) - JUDGED)
    if lacking and not differences:
        raise Unsupported(f"expectation {lacking[0]}")
    return differences


def _amounts(case: Mapping[str, Any], found: Any, names: Mapping[str, str], tolerance: Decimal) -> Iterator[str]:
    for what, wanted, got in _pairs(case, found, names):
        if got is None:
            yield f"{what}: not in the answer"
        elif abs(Decimal(str(wanted)) * 100 - got) > tolerance:
            yield f"{what}: {Decimal(got) / 100}, not {wanted}"


def _pairs(case: Mapping[str, Any], found: Any, names: Mapping[str, str]) -> Iterator[tuple[str, Any, int | None]]:
    """(what, wanted as decimal, found in cents or None) of every amount that is expected."""
    expect, lines = case["expect"], {line["id"]: line for line in found["lines"]}
    for name in TOTALS:
        if name in expect:
            yield name, expect[name], found[TOTALS[name]]
    if "subtotal_after" in expect:
        yield "subtotal_after", expect["subtotal_after"], found["subtotal"] - found["items_discount"]
    wanted = expect.get("line_discounts")
    if wanted is not None:
        # One source lists only the lines that are discounted.
        rest = dict.fromkeys(lines, "0") if case.get("source", {}).get("project") == "Medusa" else {}
        for line, value in {**rest, **wanted}.items():
            yield f"line {line}", value, lines[line]["discount"] if line in lines else None
    for rule, parts in (expect.get("rule_line_discounts") or {}).items():
        for line, value in parts.items():
            given = [part for part in lines[line]["rules"] if names[part["rule"]] == rule] if line in lines else None
            yield f"{rule} on {line}", value, None if given is None else sum(part["amount"] for part in given)


def _names(expect: Mapping[str, Any], found: Any, names: Mapping[str, str]) -> Iterator[str]:
    """Differences in which rules applied."""
    applied = [names[one["rule"]] for one in found["applied"]]
    if "applied" in expect and applied != list(expect["applied"]):
        yield f"applied {applied}, not {expect['applied']}"
    by_line = {line["id"]: [names[part["rule"]] for part in line["rules"]] for line in found["lines"]}
    for line, wanted in (expect.get("applied_by_line") or {}).items():
        if by_line.get(line) != list(wanted):
            yield f"applied on {line}: {by_line.get(line)}, not {wanted}"


def run(cases: list[dict[str, Any]]) -> Report:
    """Evaluate every case; all differences of one are told together."""
    report = Report()
    for case in cases:
        tags = [case.get("semantics") or "common"]
        try:
            differences = play(case)
            report.add(case["id"], tags, "failed" if differences else "passed", "; ".join(differences))
        except Unsupported as lacking:
            report.add(case["id"], tags, "unsupported", str(lacking))
    return report
