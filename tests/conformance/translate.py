"""From a case's words to the product's: event bytes as a producer would send them, definitions as a merchant would save them.

Nothing is decided here. What has no counterpart is Unsupported, by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from chassis.bus import Record
from contracts import topics
from contracts.codec import MESSAGES
from contracts.currencies import EXPONENTS
from google.protobuf.descriptor import FieldDescriptor

from tests.conformance.report import Unsupported

APPLIES = {"any": "both", "registered": "customers", "visitor": "visitors"}
NOBODY = {"events": {"type": "custom.nothing", "count": {"op": "lt", "value": 0}}}
CASE = {"id", "title", "provenance", "policy", "note", "tags", "timezone", "segments", "profiles", "steps"}
SEGMENT = {"key", "applies_to", "website", "active", "condition", "kind", "list", "always_include", "always_exclude"}
PROFILE = {"key", "kind", "attributes", "registered_at"}
EVENT = {"id", "profile", "type", "occurred_at", "props"}
STEPS = {
    "event": {"event"},
    "redeliver": {"event_index"},
    "define": {"segment"},
    "define_rejected": {"segment"},
    "delete": {"segment", "key"},
    "profile": {"profile"},
    "merge": {"from", "into"},
    "expect": {"members", "enter_count"},
}


def instant(text: str) -> int:
    """Epoch ms of a case's time; one without a zone is UTC."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def known(case: Mapping[str, Any]) -> None:
    """Raises Unsupported for a case that says something nobody here would look at."""
    _only(case, CASE, "a case")
    for segment in case.get("segments") or []:
        _only(segment, SEGMENT, "a segment")
    for profile in case.get("profiles") or []:
        _only(profile, PROFILE, "a profile")
    for step in case["steps"]:
        if step["do"] not in STEPS:
            raise Unsupported(f"step {step['do']}")
        _only(step, {"at", "do", "note", *STEPS[step["do"]]}, step["do"])
        for name, fields in (("event", EVENT), ("profile", PROFILE)):
            _only(step.get(name) or {}, fields, f"the {name} of a step")
        if isinstance(step.get("segment"), Mapping):
            _only(step["segment"], SEGMENT, "a segment")
        for wanted in (step.get("members") or {}).values():
            _only(wanted, {"in", "out"}, "members")


def _only(raw: Mapping[str, Any], fields: set[str], what: str) -> None:
    for name in sorted(set(raw) - fields):
        raise Unsupported(f"{name} of {what}")


def event_type(name: str) -> str:
    """The product's name of a type; what a shop made up is a custom event."""
    return name if name in MESSAGES or name.startswith("custom.") else f"custom.{name}"


def body(segment: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """A definition; `key` gives the product's key of a profile."""
    include = list(segment.get("always_include") or [])
    if segment.get("kind") == "manual":
        include += segment.get("list") or []
    picked = [(name, True) for name in include] + [(name, False) for name in segment.get("always_exclude") or []]
    return {
        "name": segment["key"],
        "description": "",
        "owner": "",
        "websites": [segment["website"]] if segment.get("website") else [],
        "status": "active" if segment.get("active", True) else "inactive",
        "applies_to": APPLIES[segment.get("applies_to", "any")],
        "condition": NOBODY if segment.get("kind") == "manual" else condition(segment.get("condition")),
        "overrides": [{"profile": key(n), "include": i, "until": None, "reason": "case"} for n, i in picked],
    }


def condition(raw: Any) -> Any:
    """A condition with the product's names of event types."""
    if isinstance(raw, list):
        return [condition(item) for item in raw]
    if not isinstance(raw, dict):
        return raw
    if "type" in raw and isinstance(raw["type"], str):
        return {**raw, "type": event_type(raw["type"])}
    return raw if "field" in raw else {name: condition(inner) for name, inner in raw.items()}


def record(subject: str, event: Mapping[str, Any], at_ms: int) -> Record:
    """The bytes of an event in CloudEvents JSON."""
    kind, props = event_type(event["type"]), dict(event.get("props") or {})
    website = str(props.pop("website", None) or "main")
    if kind == "identify":
        data: dict[str, Any] = {"attributes": props}
    elif kind in MESSAGES:
        currency = str(props.pop("currency", None) or "EUR")
        data = _message(MESSAGES[kind].DESCRIPTOR, props, currency, kind)
    else:
        data, kind = {"name": kind.removeprefix("custom."), "props": props}, "custom"
    time = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    envelope = {"specversion": "1.0", "id": str(event["id"]), "source": "case", "type": kind, "time": time}
    sent = json.dumps({**envelope, "subject": subject, "website": website, "data": data})
    return Record(topics.TOPIC_OF[kind], subject.encode(), sent.encode())


def _message(message: Any, props: Mapping[str, Any], currency: str, what: str) -> dict[str, Any]:
    data = {}
    for name, value in props.items():
        field = message.fields_by_name.get(name)
        if field is None:
            raise Unsupported(f"{name} of {what}")
        data[name] = (
            [_value(field, item, currency) for item in value] if field.is_repeated else _value(field, value, currency)
        )
    return data


def _value(field: FieldDescriptor, value: Any, currency: str) -> Any:
    if field.message_type is None or value is None:
        return value
    if field.message_type.name != "Money":
        return _message(field.message_type, value, currency, field.name)
    if currency not in EXPONENTS:
        raise Unsupported(f"the currency {currency}")
    minor = Decimal(str(value)).scaleb(EXPONENTS[currency])
    if minor != minor.to_integral_value():
        raise Unsupported(f"an amount below the smallest unit of {currency}")
    return {"amount": int(minor), "currency": currency}
