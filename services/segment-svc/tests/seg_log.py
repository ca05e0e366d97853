"""A partition as a worker reads it, and what tests of the pipe need beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
from chassis import bus
from chassis.bus import Record
from chassis.bus_places import EARLIEST, Slice
from chassis.documents import FACTS
from contracts.audience import Audience, decode
from msgspec.json import encode
from segment_svc.flows import backfill
from segment_svc.flows.ingest import Ingest
from segment_svc.positions import StoredPositions

START = 1_700_000_000_000
TOPIC = "every-type.v1"  # as no real topic does, it carries them all
JSON = (("content-type", b"application/cloudevents+json"),)
VIEWED = {"events": {"type": "product_view", "count": {"op": "gte", "value": 1}}}


def event(
    number: int, kind: str = "product_view", data: Any = None, *, at: int = START, who: str = "visitor:ann"
) -> Any:
    time = datetime.fromtimestamp(at / 1000, UTC).isoformat()
    base = {"specversion": "1.0", "id": f"e{number}", "source": "t", "type": kind, "time": time, "subject": who}
    return {**base, "data": data or {}}


def records(*values: Any, first: int = 0) -> list[Record]:
    """Values as records of one partition; anything but bytes or None as JSON."""
    raw = [v if isinstance(v, bytes | None) else encode(v) for v in values]
    return [Record(TOPIC, b"k", v, JSON, 0, first + i, START + i) for i, v in enumerate(raw)]


class Log:
    """A partition as a worker reads it."""

    def __init__(self, service: Any) -> None:
        self.deps, self.positions = service.deps, StoredPositions(service.deps.db)
        self.ingest = Ingest(service.deps, logged=True)
        self.next = 0

    async def give(self, *values: Any) -> Any:
        """One poll: the records from where the partition stands, and the step over them."""
        place = (await self.positions.read([(TOPIC, 0)]))[TOPIC, 0].next_offset
        if place == EARLIEST:
            await self.positions.found((TOPIC, 0), 0)
        found = records(*values, first=max(place, 0))
        return await self.ingest([Slice(TOPIC, 0, max(place, 0), found[-1].offset + 1, found)])

    async def place(self) -> int:
        return (await self.positions.read([(TOPIC, 0)]))[TOPIC, 0].next_offset

    async def letters(self) -> list[Record]:
        """The dead letters that are to leave."""
        async with self.deps.db.tx() as tx:
            rows = await tx.fetch("SELECT payload FROM outbox WHERE channel = $1 ORDER BY id", FACTS)
        return [r for row in rows for r in bus.unpack(row["payload"]) if r.topic.endswith(".dlq")]

    async def reasons(self) -> list[tuple[bytes | None, bytes | None]]:
        """(reason, offset) of each dead letter."""
        return [(dict(r.headers)["dlq-reason"], dict(r.headers)["dlq-offset"]) for r in await self.letters()]


async def make(client: httpx.AsyncClient, service: Any, key: str, condition: Any = VIEWED, **more: Any) -> None:
    body = {"key": key, "name": key, "status": "active", "condition": condition, **more}
    answer = await client.post("/v1/segments", json=body)
    assert answer.status_code == 201, answer.text
    while await backfill.step(service.deps):
        pass


async def members(client: httpx.AsyncClient, key: str) -> set[str]:
    return {m["profile"] for m in (await client.get(f"/v1/segments/{key}/members")).json()["members"]}


async def shown(service: Any, identity: str) -> Audience:
    await service.deps.relay.drain()
    return decode((await service.redis.get(f"aud:{identity}"))[8:])
