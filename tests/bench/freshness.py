"""How long after an event was handed to Kafka its visitor is answered otherwise, while half of what a worker can take comes in.

All four services, real servers; the visitor asks the gateway itself.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from chassis.bus import KafkaProducer, Record, ensure_topics
from contracts import topics
from devstack.kafka import Kafka
from devstack.servers import Postgres, Valkey
from devstack.stack import Stack
from devstack.testing import until
from gateway.domain.identity import VISITOR, visitor_cookie
from gateway.domain.signing import Ring

from tests.bench.shop import HEADERS, conditions, records

PROBES, WARM_S, PAUSE_S, MOST_S = 300, 3.0, 0.05, 60.0
TICK_S, BATCH_BYTES, AGAIN_S, ID = 0.02, 1024 * 1024, 0.001, b'"id":"01JD'
UNLIMITED = {f"{who}_PER_MINUTE": str(10**12) for who in ("PERSON", "BLOCK", "KEY", "BYTES")}
WORDS = {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": "hot"}}]}}
LOOKED = {"field": "sku", "op": "eq", "value": "hot"}
HOT = {"events": {"type": "product_view", "count": {"op": "gte", "value": 1}, "where": [LOOKED]}}


def load(bootstrap: str, rate: float, sent: Any) -> None:
    """Send the stream of the ingest bench at a rate, until somebody ends this process; `sent` counts what was taken.

    By whole batches: sending one by one would cost this machine more than what is measured.
    """

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type="lz4", max_batch_size=BATCH_BYTES)
        await producer.start()
        split = DefaultPartitioner()
        all_of = {topic: sorted(await producer.partitions_for(topic)) for topic in topics.SHAPES}
        made = [((r.topic, split(r.key, all_of[r.topic], all_of[r.topic])), r) for r in records()]
        began = time.perf_counter()
        while True:
            due = min(int((time.perf_counter() - began) * rate), sent.value + int(rate))
            batches: dict[tuple[str, int], BatchBuilder] = {}
            for number in range(sent.value, due):
                where, record = made[number % len(made)]
                batch = batches.get(where) or batches.setdefault(where, producer.create_batch())
                value = record.value.replace(
                    ID, b'"id":"%04d' % (number // len(made)), 1
                )  # the next time round they are others
                assert batch.append(timestamp=None, key=record.key, value=value, headers=list(record.headers))
            taken = [
                await producer.send_batch(batch, topic, partition=part) for (topic, part), batch in batches.items()
            ]
            await asyncio.gather(*taken)
            sent.value = due
            await asyncio.sleep(TICK_S)

    asyncio.run(send())


class _Asking:
    """A visitor with a connection of their own."""

    def __init__(self, port: int, key: str) -> None:
        self._socket, self._key = socket.create_connection(("127.0.0.1", port)), key

    def sees(self, cookie: str) -> bool:
        """Whether the block is shown."""
        lines = (
            "GET /v1/decisions?slots=hot HTTP/1.1",
            "host: localhost",
            f"x-api-key: {self._key}",
            f"cookie: {VISITOR}={cookie}",
        )
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        found = b""
        while b"decision_id" not in found or not found.endswith(b"}"):
            found += self._socket.recv(65536)
        return b'"key":"hot"' in found


def _event(name: str, number: int) -> Record:
    when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {"id": f"hot{number}", "source": "bench", "type": "product_view", "time": when, "subject": f"visitor:{name}"}
    value = msgspec.json.encode({**body, "data": {"sku": "hot"}})
    return Record(topics.TOPIC_OF["product_view"], name.encode(), value, HEADERS)


def _publish(stack: Stack) -> None:
    with httpx.Client(base_url=f"{stack.url}/admin/v1", headers={"x-api-key": stack.secrets.admin}) as admin:
        segments = {f"s{n}": condition for n, condition in enumerate(conditions())} | {"hot": HOT}
        for key, condition in segments.items():
            body = {"key": key, "name": key, "status": "active", "condition": condition}
            admin.post("/segments", json=body).raise_for_status()
        admin.post("/slots", json={"key": "hot", "title": "hot", "default": WORDS}).raise_for_status()
        block = {"key": "hot", "title": "hot", "status": "live", "slots": ["hot"], "content": WORDS}
        admin.post("/blocks", json={**block, "audience": {"any_of": ["hot"]}}).raise_for_status()
        until(lambda: all(s["live_version"] for s in admin.get("/segments").json()["segments"]))


async def _waits(stack: Stack, bootstrap: str) -> list[float]:
    """Milliseconds, one after the other, for MOST_S at most."""
    ring, rng, producer, found = Ring(f"1:{stack.secrets.visitor}"), random.Random(1), KafkaProducer(bootstrap), []
    asking = _Asking(stack.ports["gateway"], stack.secrets.publishable)
    until_s = time.perf_counter() + MOST_S
    for number in range(PROBES):
        if time.perf_counter() > until_s:
            break
        name, cookie = visitor_cookie(ring, rng.randbytes(16))
        assert not asking.sees(cookie)
        began_s = time.perf_counter()
        await producer.send_all([_event(name, number)])
        while not asking.sees(cookie):
            assert time.perf_counter() - began_s < 30
            time.sleep(AGAIN_S)  # asking without a pause would take a core
        found.append((time.perf_counter() - began_s) * 1000)
        await asyncio.sleep(PAUSE_S)
    await producer.stop()
    return sorted(found)


async def bench(state: Path, *, rate: float) -> dict[str, Any]:
    """p50 and p99 in milliseconds, with events coming in beside: how many did a second, of the rate they were to come at."""
    servers = [Postgres(state), Valkey(state), Kafka(state)]
    for server in servers:
        server.start()
    postgres, valkey, kafka = servers
    stack = Stack(
        state / "freshness", f"{postgres.url.removesuffix('postgres')}freshness", valkey.url, kafka.bootstrap,
        extra={"gateway": UNLIMITED},
    )  # fmt: skip
    spawning = multiprocessing.get_context("spawn")
    sent = spawning.Value("q", 0, lock=False)
    loading = spawning.Process(target=load, args=(kafka.bootstrap, rate, sent), daemon=True)
    try:
        admin = await asyncpg.connect(postgres.url)
        await admin.execute("CREATE DATABASE freshness")
        await admin.close()
        await ensure_topics(kafka.bootstrap, topics.SHAPES)
        stack.start()
        _publish(stack)
        loading.start()
        until(lambda: sent.value > 0)
        await asyncio.sleep(WARM_S)
        before, began_s = sent.value, time.perf_counter()
        waits = await _waits(stack, kafka.bootstrap)
        came = (sent.value - before) / (time.perf_counter() - began_s)
    finally:
        if loading.is_alive():
            loading.kill()
        stack.stop()
        for server in reversed(servers):
            server.stop()
    return {"p50": waits[len(waits) // 2], "p99": waits[int(len(waits) * 0.99)], "events a second": came, "of": rate}
