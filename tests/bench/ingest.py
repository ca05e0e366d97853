"""Ingest: events from real Kafka to committed and readable by one worker, against the prototype's inner loop.

Both take the same stream, messages of 342 bytes, in batches of up to 2,000, on the same servers.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
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

from tests.bench import prototype
from tests.bench.measure import ratio
from tests.bench.prototype import BATCH
from tests.bench.shop import EVENTS, conditions, flat_messages, records


async def product(base: str, redis_url: str, kafka: str, *, state: Path) -> float:
    """Events per second of the worker: from its first committed batch to its last."""
    name = f"ingest{time.monotonic_ns()}"
    admin = await asyncpg.connect(f"{base}postgres")
    await admin.execute(f"CREATE DATABASE {name}")
    await upgrade(f"{base}{name}", schema=SCHEMA, package="segment_svc")
    settings = Settings(f"{base}{name}", redis_url, "s" * 32)
    async with adapters(settings, clock=SystemClock()) as built:
        for number, condition in enumerate(conditions()):
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
        if done >= EVENTS:
            break
        await asyncio.sleep(0.01)
    rate = (EVENTS - seen) / (time.perf_counter() - first)
    worker.stop()
    await connection.close()
    await admin.close()
    return rate


async def bench(state: Path, *, count: int = 5) -> dict[str, Any]:
    """Events per second, ours against the prototype, alternating."""
    made, flat = records(), flat_messages()
    servers = [Postgres(state), Valkey(state), Kafka(state)]
    for server in servers:
        server.start()
    try:
        postgres, valkey, kafka = servers
        base = postgres.url.removesuffix("postgres")
        await ensure_topics(kafka.bootstrap, topics.PARTITIONS)
        producer = KafkaProducer(kafka.bootstrap)
        await producer.start()
        for start in range(0, EVENTS, BATCH):
            await producer.send_all(made[start : start + BATCH])
        await producer.stop()
        found: dict[str, list[float]] = {"ours": [], "prototype": []}
        for _ in range(count):
            found["prototype"].append(await prototype.run(postgres.url, valkey.url, flat))
            found["ours"].append(await product(base, valkey.url, kafka.bootstrap, state=state))
    finally:
        for server in reversed(servers):
            server.stop()
    middle, low, high = ratio(found, "ours", "prototype")
    return {"ratio": middle, "low": low, "high": high, "goal": 0.5, "events_per_s": found, "cores": os.cpu_count()}
