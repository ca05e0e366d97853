"""Run inside the gateway's container: an event published to Kafka changes what the edge shows, within a minute."""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import UTC, datetime
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer

FRONT, GATEWAY = "http://front:8080", "http://gateway:8000"


def words(text: str) -> dict[str, Any]:
    return {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": text}}]}}


def campaign(admin: httpx.Client) -> None:
    """A segment of people who viewed something, and a block for them."""
    condition = {"events": {"type": "product_view", "count": {"op": "gte", "value": 1}}}
    slot = {"key": "probe.top", "title": "Probe", "default": words("for everybody")}
    block = {
        "key": "probe",
        "title": "Probe",
        "slots": ["probe.top"],
        "status": "live",
        "content": words("for viewers"),
    }
    for noun, body in (
        ("segments", {"key": "viewers", "name": "Viewers", "status": "active", "condition": condition}),
        ("slots", slot),
        ("blocks", {**block, "audience": {"any_of": ["viewers"]}}),
    ):
        admin.post(f"/{noun}", json=body).raise_for_status()
    while not all(s["live_version"] for s in admin.get("/segments").json()["segments"]):
        time.sleep(0.2)


class Visitor:
    """Somebody at the edge, with the cookies the gateway gives."""

    def __init__(self, key: str) -> None:
        self._headers, self._cookies = {"x-api-key": key}, {}

    def _get(self, path: str) -> httpx.Response:
        cookie = "; ".join(f"{n}={v}" for n, v in self._cookies.items())
        answer = httpx.get(FRONT + path, headers={**self._headers, **({"cookie": cookie} if cookie else {})})
        answer.raise_for_status()
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.split(";")[0].partition("=")
            self._cookies[name] = value
        return answer

    def name(self) -> str:
        """The visitor id: the part of the cookie before its signature."""
        self._get("/v1/context")
        return self._cookies["__Host-ff_vid"].split(".")[0]

    def sees(self) -> str:
        """The block in the slot, by a fresh context."""
        self._get("/v1/context")
        return str(self._get("/v1/decisions?slots=probe.top").json()["slots"]["probe.top"]["blocks"][0]["key"])


async def publish(visitor: str) -> None:
    """One product view, as a shop's producer would send it."""
    event = {
        "specversion": "1.0", "id": "probe-1", "source": "probe", "type": "product_view",
        "time": datetime.now(UTC).isoformat(), "subject": f"visitor:{visitor}", "data": {"sku": "P"},
    }  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers="kafka:9092")
    await producer.start()
    headers = [("content-type", b"application/cloudevents+json")]
    await producer.send_and_wait("storefront.browse.v1", json.dumps(event).encode(), visitor.encode(), headers=headers)
    await producer.stop()


def main() -> None:
    with httpx.Client(base_url=f"{GATEWAY}/admin/v1", headers={"x-api-key": os.environ["MERCHANT"]}) as admin:
        campaign(admin)
    visitor = Visitor(os.environ["STOREFRONT"])
    name, until = visitor.name(), time.monotonic() + 60
    while visitor.sees() != "probe.top:default":  # the gateway learns of the new slot in the background
        assert time.monotonic() < until, "the slot never appeared"
        time.sleep(0.1)
    asyncio.run(publish(name))
    began = time.monotonic()
    while visitor.sees() != "probe":
        assert time.monotonic() < until, "the event never changed the decision"
        time.sleep(0.05)
    print(f"event in Kafka -> decision at the edge changed: {time.monotonic() - began:.2f} s")


main()
