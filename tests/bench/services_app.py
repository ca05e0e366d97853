"""Stands for the three services in the decisions bench: the gateway asks them when it starts and on a miss."""

from __future__ import annotations

import json
import time
from typing import Any

SEGMENTS, BLOCKS, SLOTS = 200, 200, 4
CONTENT = {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": "x" * 40}}]}


def _known(path: str) -> Any:
    if path == "/v1/head":
        return {"version": 1, "redis": None, "at_ms": time.time_ns() // 1_000_000}
    if path == "/v1/definitions":
        refs = (
            {"id": i, "key": f"s{i}", "websites": [], "applies_to": "both", "atom": i, "epoch": 0, "since": 0}
            for i in range(SEGMENTS)
        )
        return {
            "version": 1,
            "empty": {"visitor": "", "customer": ""},
            "segments": [{**ref, "residual": None} for ref in refs],
            "changes": [],
        }
    rest = {"websites": [], "locales": ["*"], "default": {"*": CONTENT}}
    slots = {f"slot{i}": {**rest, "tags": [f"slot:slot{i}"], "audiences": [_audience(i)]} for i in range(SLOTS)}
    return {"version": 1, "slots": slots, "rules": [], "segments": [], "changes": []}


def _audience(slot: int) -> dict[str, Any]:
    keys = [f"s{b}" for b in range(BLOCKS) if b % SLOTS == slot]
    return {"websites": [], "segments": keys, "groups": [], "boundaries": []}


def _selected(asked: Any) -> Any:
    mine = asked["segments"][:SLOTS] or ["default"]
    slots = {
        f"slot{i}": {"fallback": False, "blocks": [{"key": mine[i % len(mine)], "content": CONTENT}]}
        for i in range(SLOTS)
    }
    return {
        "version": 1,
        "slots": slots,
        "messages": [],
        "tags": [f"slot:slot{i}" for i in range(SLOTS)],
        "next_change_at": None,
    }


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer as the services would."""
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message.get("body", b"")
    data = json.dumps(
        _known(scope["path"])
        if scope["method"] == "GET"
        else {"answers": [_selected(ask) for ask in json.loads(body)["asks"]]}
    ).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})
