"""Ingest: events from real Kafka to committed and readable, against the same folding without Kafka, dedup or timers.

The baseline is the inner loop as a prototype would write it: decode, load, fold counters, upsert, write Redis, in one
process on the same servers. Both take batches of up to 2,000.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import redis.asyncio as aioredis
from chassis.bus import KafkaProducer, ensure_topics
from chassis.clock import SystemClock
from chassis.migrate import upgrade
from contracts import topics
from devstack.kafka import Kafka
from devstack.process import Child, free_port
from devstack.servers import Postgres, Valkey
from segment_svc.app import SCHEMA, adapters
from segment_svc.flows import backfill
from segment_svc.flows.save_segment import Change, save_segment
from segment_svc.settings import Settings

from tests.bench.measure import ratio
from tests.faults.history import CONDITIONS, History, history

EVENTS, BATCH, SEGMENTS = 60_000, 2000, 20


class Plain(msgspec.Struct):
    """What the prototype reads of an event."""

    type: str
    subject: str
    time: str


async def prototype(url: str, redis_url: str, made: History) -> float:
    """Events per second of the baseline."""
    connection, client = await asyncpg.connect(url), aioredis.from_url(redis_url)
    await connection.execute("DROP TABLE IF EXISTS ing; CREATE TABLE ing (v text PRIMARY KEY, ver bigint, state bytea)")
    decode, encode, load = (
        msgspec.json.Decoder(Plain).decode,
        msgspec.json.Encoder().encode,
        msgspec.json.Decoder().decode,
    )
    began = time.perf_counter()
    for start in range(0, len(made.records), BATCH):
        by: dict[str, list[Plain]] = {}
        for record in made.records[start : start + BATCH]:
            event = decode(record.value or b"")
            by.setdefault(event.subject, []).append(event)
        found = {
            r["v"]: load(r["state"])
            for r in await connection.fetch("SELECT v, state FROM ing WHERE v = ANY($1)", list(by))
        }
        moved = {}
        for subject, events in by.items():
            state = found.setdefault(subject, {"n": {}, "seg": 0})
            for event in events:
                state["n"][event.type] = state["n"].get(event.type, 0) + 1
            bits = sum(
                1 << i
                for i in range(SEGMENTS)
                if state["n"].get("product_view", 0) > i and state["n"].get("add_to_cart", 0) > i
            )
            if bits != state["seg"]:
                state["seg"] = bits
                moved[f"seg:{subject}"] = bits
        await connection.execute(
            """INSERT INTO ing SELECT v, $2, s FROM unnest($1::text[], $3::bytea[]) u (v, s)
               ON CONFLICT (v) DO UPDATE SET ver = EXCLUDED.ver, state = EXCLUDED.state""",
            list(by), start, [encode(found[v]) for v in by],
        )  # fmt: skip
        if moved:
            await client.mset(moved)
    seconds = time.perf_counter() - began
    await connection.close()
    await client.aclose()
    return len(made.records) / seconds


async def product(base: str, redis_url: str, kafka: str, *, made: History, state: Path) -> float:
    """Events per second of the worker: from its first committed batch to its last."""
    name = f"ingest{time.monotonic_ns()}"
    admin = await asyncpg.connect(f"{base}postgres")
    await admin.execute(f"CREATE DATABASE {name}")
    await upgrade(f"{base}{name}", schema=SCHEMA, package="segment_svc")
    settings = Settings(f"{base}{name}", redis_url, "s" * 32)
    async with adapters(settings, clock=SystemClock()) as built:
        for number in range(SEGMENTS):
            condition = list(CONDITIONS.values())[number % len(CONDITIONS)]
            body = {
                "name": "x",
                "description": "",
                "owner": "",
                "websites": [],
                "status": "active",
                "applies_to": "both",
            }
            await save_segment(
                built.deps, Change(f"s{number}", {**body, "condition": condition, "overrides": []}, None, "bench")
            )
        while await backfill.step(built.deps):
            pass
    values = {
        "DATABASE_URL": settings.database_url, "REDIS_URL": redis_url, "SERVICE_SECRET": "s" * 32, "KAFKA_BOOTSTRAP": kafka,
        "GROUP": name, "PORT": str(free_port()),
    }  # fmt: skip
    env = {f"SEGMENT_{k}": v for k, v in values.items()}
    worker = Child("worker", [sys.executable, "-m", "segment_svc", "worker"], state / f"{name}.log", env=env)
    worker.start()
    connection = await asyncpg.connect(settings.database_url)
    first, seen, until = 0.0, 0, time.monotonic() + 120
    while time.monotonic() < until:
        done = int(await connection.fetchval(f"SELECT coalesce(sum(next_offset), 0) FROM {SCHEMA}.position"))
        if done and not first:
            first, seen = time.perf_counter(), done
        if done >= len(made.records):
            break
        await asyncio.sleep(0.01)
    rate = (len(made.records) - seen) / (time.perf_counter() - first)
    worker.stop()
    await connection.close()
    await admin.close()
    return rate


def _rows() -> list[tuple[str, str, int, int]]:
    """20,000 visitors, half of the traffic skewed to few of them, as the prototype's."""
    rng, kinds = random.Random(9), ["product_view"] * 3 + ["add_to_cart", "order_placed"]
    who = (
        int(rng.paretovariate(1.2) * 50) % 20_000 if rng.random() < 0.5 else rng.randrange(20_000)
        for _ in range(EVENTS)
    )
    return [
        (f"v{v}", rng.choice(kinds), 1_600_000_000_000 + i * 1000, rng.randrange(100, 9000)) for i, v in enumerate(who)
    ]


async def bench(state: Path, *, count: int = 5) -> dict[str, Any]:
    """Events per second, ours against the prototype, alternating."""
    made = history(EVENTS, _rows())
    servers = [Postgres(state), Valkey(state), Kafka(state)]
    for server in servers:
        server.start()
    try:
        postgres, valkey, kafka = servers
        base = postgres.url.removesuffix("postgres")
        await ensure_topics(kafka.bootstrap, topics.PARTITIONS)
        producer = KafkaProducer(kafka.bootstrap)
        await producer.start()
        for start in range(0, len(made.records), BATCH):
            await producer.send_all(made.records[start : start + BATCH])
        await producer.stop()
        found: dict[str, list[float]] = {"ours": [], "prototype": []}
        for _ in range(count):
            found["prototype"].append(await prototype(postgres.url, valkey.url, made))
            found["ours"].append(await product(base, valkey.url, kafka.bootstrap, made=made, state=state))
    finally:
        for server in reversed(servers):
            server.stop()
    middle, low, high = ratio(found, "ours", "prototype")
    return {"ratio": middle, "low": low, "high": high, "goal": 0.5, "events_per_s": found, "cores": os.cpu_count()}
