"""Leaves that can be answered only while a request is, and the atom that stands for a tracked durable sub-tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conditions.kinds import AMOUNT, CODE, FLAG, OPEN, TEXT, Kind, literal_for, matcher_for
from conditions.operators import PRESENCE
from conditions.read import nearest, only, shown, step
from conditions.tree import Answer, Fail, LeafType

FACTS = ("country", "region", "city", "device")  # said by who is trusted to know
PAGE = ("language", "referrer", "landing_page", "utm_source", "utm_medium", "utm_campaign", "visit")
IN_THE_URL = ("locale",)
SAID_BY_ANYBODY = frozenset((*PAGE, *IN_THE_URL))  # may steer content, never a price
TEXTS = (*FACTS, *IN_THE_URL, *PAGE)
MOST_NAME, MOST_ATOMS = 200, 1 << 20
FIELDS: dict[str, Kind] = {**dict.fromkeys(TEXTS, TEXT), "hour": AMOUNT, "weekday": AMOUNT, "logged_in": FLAG}


def comparison(
    raw: Mapping[str, Any], key: str, fail: Fail, *, exact: bool = False, kind: Kind = OPEN
) -> tuple[str, str, Any]:
    """The common shape {key: name, op, value}: checked (name, op, literal). `exact` is for codes, `kind` for known fields."""
    only(raw, (key, "op", "value"), fail)
    if not isinstance(raw[key], str) or not 0 < len(raw[key]) <= MOST_NAME:
        fail(step(key), "wrong-type", f"a name of 1 to {MOST_NAME} characters is needed")
    op = raw.get("op", "eq")
    return raw[key], op, literal_for(CODE if exact else kind, op, raw.get("value"), fail)


def comparison_json(key: str, params: tuple[str, str, Any]) -> dict[str, Any]:
    """The storage form of a comparison."""
    name, op, literal = params
    body = {key: name, "op": op}
    return body if op in PRESENCE else {**body, "value": list(literal) if isinstance(literal, tuple) else literal}


def asked(context: Mapping[str, Any], name: str) -> Any:
    """A field of a request. Where it is a flag, the texts of a query string are read as one."""
    value = context.get(name)
    return {"true": True, "false": False}.get(value, value) if FIELDS[name] is FLAG and type(value) is str else value


class Context(LeafType):
    """{"context": field, op, value}: `facts.context` maps the fields of the request."""

    key = "context"
    context = True

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        name = raw["context"]
        if not isinstance(name, str) or name not in FIELDS:
            fail("/context", "unknown-field", f"{shown(name)} is not known of a request{nearest(name, FIELDS)}")
            return None
        return comparison(raw, "context", fail, kind=FIELDS[name])

    def json(self, params: Any) -> dict[str, Any]:
        """See LeafType."""
        return comparison_json("context", params)

    def test(self, params: Any, facts: Any, now: int) -> bool:
        """See LeafType."""
        return self.bind(params)(facts, now)

    def bind(self, params: Any) -> Answer:
        """See LeafType."""
        name, op, literal = params
        matches = matcher_for(FIELDS[name], op, literal)
        return lambda facts, now: matches(asked(facts.context, name))

    def seen(self, params: Any, facts: Any, now: int) -> Any:
        """See LeafType."""
        return asked(facts.context, params[0])


class Atom(LeafType):
    """{"atom": n}: bit n of `facts.atoms`."""

    key = "atom"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        """See LeafType."""
        atom = raw["atom"]
        if type(atom) is not int or not 0 <= atom < MOST_ATOMS:
            fail("/atom", "wrong-type", "an atom is a bit number")
            return None
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
