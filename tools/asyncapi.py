"""Writes docs/api/asyncapi.json from the topic catalogue and the messages. `--check` only says whether it would change."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from contracts.codec import MESSAGES
from contracts.events.v1 import facts_pb2
from google.protobuf.descriptor import FieldDescriptor

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "api" / "asyncapi.json"
FACTS = {"membership_changed": facts_pb2.MembershipChanged, "targeting_changed": facts_pb2.TargetingChanged}
SCALARS = {FieldDescriptor.CPPTYPE_STRING: "string", FieldDescriptor.CPPTYPE_BOOL: "boolean"}


def schema(message: Any) -> dict[str, Any]:
    """JSON Schema of a message in canonical proto JSON."""
    if message.full_name == "google.protobuf.Struct" or message.GetOptions().map_entry:
        return {"type": "object"}
    return {
        "type": "object",
        "properties": {f.json_name: field(f) for f in message.fields},
        "additionalProperties": False,
    }


def field(one: Any) -> dict[str, Any]:
    """JSON Schema of a field; 64-bit integers may be written as decimal strings."""
    if one.message_type is not None:
        inner = schema(one.message_type)
        if one.message_type.GetOptions().map_entry:
            return inner
    else:
        inner = {"type": SCALARS.get(one.cpp_type, ["integer", "string"])}
    return {"type": "array", "items": inner} if one.is_repeated else inner


def document() -> dict[str, Any]:
    """The AsyncAPI 3.0 document."""
    catalogue = yaml.safe_load((ROOT / "proto/topics/catalogue.yaml").read_text())
    envelope = ["specversion", "id", "source", "type", "time", "subject", "data"]
    messages = {
        kind: {
            "name": kind,
            "contentType": "application/cloudevents+json",
            "payload": {"type": "object", "required": envelope, "properties": {"data": schema(m.DESCRIPTOR)}},
        }
        for kind, m in {**MESSAGES, **FACTS}.items()
    }
    channels, operations = {}, {}
    for topic, entry in catalogue.items():
        refs = {kind: {"$ref": f"#/components/messages/{kind}"} for kind in entry["types"]}
        kept = f"kept {entry['retention_days']} days; dead letters: {entry['dead_letter']}"
        words = f"owner: {entry['owner']}; key: {entry['key']}; {kept}"
        channels[topic] = {"address": topic, "description": words, "messages": refs}
        action = "receive" if "segment-svc" in entry["consumers"] else "send"
        operations[f"{action} {topic}"] = {"action": action, "channel": {"$ref": f"#/channels/{topic}"}}
    info = {"title": "Footfall", "version": "1"}
    return {
        "asyncapi": "3.0.0",
        "info": info,
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def main() -> int:
    """Write or check."""
    text = json.dumps(document(), indent=1, sort_keys=True) + "\n"
    if "--check" in sys.argv:
        return 0 if TARGET.exists() and TARGET.read_text() == text else 1
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
