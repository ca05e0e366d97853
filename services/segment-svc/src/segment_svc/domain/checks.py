"""What is wrong with a definition, by itself and among the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from conditions import Fault, Invalid, parse
from conditions.read import nearest, shown

from segment_svc.domain.definition import Definition, depends_on_itself, references, request_fields
from segment_svc.domain.part import UTC
from segment_svc.domain.vocabulary import vocabulary

MOST_FILTERS = 500


def _filters(condition: Any) -> int:
    """How many predicates on fields of events there are."""
    if isinstance(condition, Mapping):
        return ("field" in condition) + sum(map(_filters, condition.values()))
    return sum(map(_filters, condition)) if isinstance(condition, list) else 0


def check(definition: Definition, zone: ZoneInfo = UTC) -> list[Fault]:
    """What is wrong with a definition by itself."""
    try:
        parse(definition.condition, vocabulary(definition.websites, zone, {}))
    except Invalid as error:
        return error.faults
    if _filters(definition.condition) > MOST_FILTERS:
        return [Fault("", "too-large", f"a condition has at most {MOST_FILTERS} filters in all")]
    return []


def among(definitions: Sequence[Definition], key: str) -> list[Fault]:
    """What is wrong with the checked definition `key` among the others, each of which can be read."""
    by_key, faults = {d.key: d for d in definitions}, []
    for name in sorted(references(by_key[key].condition)):
        if name not in by_key:
            detail = f"there is no active segment {shown(name)}{nearest(name, by_key)}"
            faults.append(Fault("", "unknown-segment", detail))
        elif request_fields(by_key[name].condition):
            faults.append(Fault("", "needs-request", f"{name!r} depends on the request and cannot be referred to"))
    if depends_on_itself(by_key, key):
        faults.append(Fault("", "cycle", "the segment would depend on itself"))
    return faults
