"""Leaves that can be answered only while a request is, and the atom that stands for a tracked durable sub-tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conditions.operators import OPERATORS, compare, literal_of
from conditions.read import nearest
from conditions.tree import Fail, LeafType

FIELDS = (
    "country", "region", "city", "device", "locale", "language", "referrer", "landing_page", "utm_source", "utm_medium",
    "utm_campaign", "hour", "weekday", "visit", "logged_in",
)  # fmt: skip


def comparison(raw: Mapping[str, Any], key: str, fail: Fail) -> tuple[str, str, Any]:
    """The common shape {key: name, op, value}: checked (name, op, literal)."""
    extra = set(raw) - {key, "op", "value"}
    if extra:
        fail(
            f"/{min(extra)}",
            "unknown-field",
            f"{min(extra)!r} does not belong here{nearest(min(extra), ['op', 'value'])}",
        )
    op = raw.get("op", "eq")
    if op not in OPERATORS:
        fail("/op", "unknown-operator", f"{op!r} is not an operator{nearest(str(op), OPERATORS)}")
        return str(raw[key]), "eq", None
    return str(raw[key]), op, literal_of(op, raw.get("value"), fail)


def comparison_json(key: str, params: tuple[str, str, Any]) -> dict[str, Any]:
    """The storage form of a comparison."""
    name, op, literal = params
    body = {key: name, "op": op}
    return (
        body
        if op in ("exists", "missing")
        else {**body, "value": list(literal) if isinstance(literal, tuple) else literal}
    )


class Context(LeafType):
    """{"context": field, op, value}: `facts.context` maps the fields of the request."""

    key = "context"
    context = True

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        if raw["context"] not in FIELDS:
            fail(
                "/context",
                "unknown-field",
                f"{raw['context']!r} is not known of a request{nearest(str(raw['context']), FIELDS)}",
            )
            return None
        return comparison(raw, "context", fail)

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return comparison_json("context", params)

    def test(self, params: Any, facts: Any, now: int) -> bool:
        """See LeafType."""
        name, op, literal = params
        return compare(op, facts.context.get(name), literal)

    def seen(self, params: Any, facts: Any, now: int) -> Any:
        """See LeafType."""
        return facts.context.get(params[0])


class Atom(LeafType):
    """{"atom": n}: bit n of `facts.atoms`."""

    key = "atom"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        atom = raw["atom"]
        if not isinstance(atom, int) or isinstance(atom, bool) or atom < 0:
            fail("/atom", "wrong-type", "an atom is a bit number")
        return atom

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return {"atom": params}

    def test(self, params: Any, facts: Any, now: int) -> bool:
        """See LeafType."""
        return bool(facts.atoms >> params & 1)

    def seen(self, params: Any, facts: Any, now: int) -> Any:
        """See LeafType."""
        return bool(facts.atoms >> params & 1)
