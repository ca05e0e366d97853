"""What is wrong with a definition, by itself and among the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from conditions import Fault, Invalid, leaves, parse
from conditions.read import nearest, shown

from segment_svc.domain.definition import Definition, depends_on_itself, references, request_fields
from segment_svc.domain.ruleset import UTC
from segment_svc.domain.vocabulary import vocabulary

MOST_FILTERS = 500


def _filters(condition: Any) -> int:
    """How many predicates on fields of events there are."""
    if isinstance(condition, Mapping):
        return ("field" in condition) + sum(map(_filters, condition.values()))
    return sum(map(_filters, condition)) if isinstance(condition, list) else 0


def _can_be_read(definition: Definition, zone: ZoneInfo) -> bool:
    try:
        parse(definition.condition, vocabulary(definition.websites, zone, {}))
    except Invalid:
        return False
    return True


def check(definitions: Sequence[Definition], key: str, zone: ZoneInfo = UTC) -> list[Fault]:
    """What is wrong with the definition `key` among the others; nothing when it can be saved."""
    by_key = {d.key: d for d in definitions}
    try:
        tree = parse(by_key[key].condition, vocabulary(by_key[key].websites, zone, {}))
    except Invalid as error:
        return error.faults
    if _filters(by_key[key].condition) > MOST_FILTERS:
        return [Fault("", "too-large", f"a condition has at most {MOST_FILTERS} filters in all")]
    faults = []
    for name in sorted(references(by_key[key].condition)):
        if name not in by_key or not _can_be_read(by_key[name], zone):
            detail = f"there is no active segment {shown(name)}{nearest(name, by_key)}"
            faults.append(Fault("", "unknown-segment", detail))
        elif request_fields(by_key[name].condition):
            faults.append(Fault("", "needs-request", f"{name!r} depends on the request and cannot be referred to"))
    if any(leaf.type.key == "segment" for leaf in leaves(tree)) and depends_on_itself(by_key, key):
        faults.append(Fault("", "cycle", "the segment would depend on itself"))
    return faults
