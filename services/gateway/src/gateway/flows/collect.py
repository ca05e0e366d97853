"""Called by POST /v1/events. Checks a batch, says who it is about, and hands it to Kafka, or to segment-svc without one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
from aiokafka.errors import KafkaError
from chassis.bus import Record
from chassis.problems import Problem
from contracts import topics
from contracts.codec import plausible
from contracts.fields import Undecodable

from gateway.adapters.keys import ApiKey
from gateway.adapters.upstreams import SEGMENT
from gateway.deps import Deps
from gateway.telemetry import COLLECTED

MOST_EVENTS, HAND_OVER_S = 500, 5.0
HEADERS = (("content-type", b"application/cloudevents+json"),)
_encode = msgspec.json.Encoder().encode


async def collect(deps: Deps, key: ApiKey, body: dict[str, Any], *, visitor: str | None) -> dict[str, Any]:
    """Accept what is right and name what is not. Raises Problem 422 for a body that is no batch, 503 when nobody takes it."""
    events = body.get("events")
    if not isinstance(events, list) or not 0 < len(events) <= MOST_EVENTS:
        detail = f"events is a list of 1 to {MOST_EVENTS}"
        raise Problem(
            "invalid-request", 422, "The batch is not valid", errors=[{"pointer": "/events", "detail": detail}]
        )
    accepted: list[tuple[str, dict[str, Any]]] = []
    rejected: list[dict[str, str]] = []
    for i, raw in enumerate(events):
        try:
            event = _own(key, raw, visitor)
            plausible(deps.codec.decode(_encode(event), HEADERS), deps.clock.now_ms())
            accepted.append((topics.TOPIC_OF[event["type"]], event))
        except Undecodable as error:
            rejected.append({"pointer": f"/events/{i}", "reason": error.reason, "detail": error.detail})
    if accepted:
        await _hand_over(deps, accepted)
    COLLECTED.labels(result="accepted").inc(len(accepted))
    COLLECTED.labels(result="rejected").inc(len(rejected))
    return {"accepted": len(accepted), "rejected": rejected}


def _own(key: ApiKey, raw: Any, visitor: str | None) -> dict[str, Any]:
    """The event as this caller may send it: a browser speaks for its own cookie only, and not about orders."""
    if not isinstance(raw, dict):
        raise Undecodable("not-an-event", "an event is an object")
    event = {"specversion": "1.0", **raw, "website": key.website}
    if not isinstance(event.get("type"), str) or event["type"] not in topics.TOPIC_OF:
        raise Undecodable("unknown-type", f"{str(event.get('type'))[:60]!r} is not an event type")
    if key.kind == "secret":
        return event
    if event["type"] not in topics.BROWSER_TYPES:
        raise Undecodable("not-allowed", "this type of event comes from a server")
    if visitor is None:
        raise Undecodable("no-visitor", "there is no visitor id: call GET /v1/context first")
    now = datetime.now(UTC).isoformat()
    return {"time": now, **event, "subject": f"visitor:{visitor}", "source": f"browser/{visitor}"}


async def _hand_over(deps: Deps, events: list[tuple[str, dict[str, Any]]]) -> None:
    try:
        if deps.producer is not None:
            records = [Record(topic, e["subject"].encode(), _encode(e), HEADERS) for topic, e in events]
            async with asyncio.timeout(HAND_OVER_S):
                refused = await deps.producer.send_all(records)
            if refused:
                raise KafkaError(refused[0][1])
        else:
            answer = await deps.upstreams.send(SEGMENT, "POST", "/v1/events", json={"events": [e for _, e in events]})
            answer.raise_for_status()
    except (httpx.HTTPError, KafkaError, OSError, TimeoutError) as error:
        raise Problem(
            "collector-unavailable", 503, "Events cannot be taken now", headers={"retry-after": "1"}
        ) from error
