"""Ingest: events from real Kafka to committed and readable, against the prototype's inner loop.

Both take the same stream, messages of 342 bytes, in batches of up to 2,000, on the same servers. The prototype is one
process and cannot be more; the product is measured with one worker, and with one per core as it is deployed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from chassis.auth import Actor
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

WORKERS = {"ingest, one worker": 1, "ingest, a worker per core": os.cpu_count() or 1}


async def _shop(base: str, redis_url: str) -> Settings:
    """A fresh database with the segments of the bench, all of them live."""
    name = f"ingest{time.monotonic_ns()}"
    admin = await asyncpg.connect(f"{base}postgres")
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    await upgrade(f"{base}{name}", schema=SCHEMA, package="segment_svc")
    settings = Settings(f"{base}{name}", redis_url, "s" * 32, group=name)
    rest = {"name": "x", "description": "", "owner": "", "websites": [], "applies_to": "both", "overrides": []}
    async with adapters(settings, clock=SystemClock()) as built:
        for number, condition in enumerate(conditions()):
            body = {**rest, "status": "active", "condition": condition}
            await save_segment(built.deps, Change(f"s{number}", body, None, Actor("bench", "marketer")))
        while await backfill.step(built.deps):
            pass
    return settings


async def _joined(kafka: str, group: str, count: int) -> None:
    """Wait until every worker has its partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        async with asyncio.timeout(60):
            while True:
                with suppress(KafkaError):
                    [answer] = await admin.describe_consumer_groups([group])
                    _, _, state, _, _, members, *_ = answer.groups[0]
                    if state == "Stable" and len(members) == count:
                        return
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def product(base: str, redis_url: str, kafka: str, *, state: Path, count: int) -> float:
    """Events per second of `count` workers, from when all of them have joined to the last commit."""
    settings = await _shop(base, redis_url)
    values = {
        "DATABASE_URL": settings.database_url, "REDIS_URL": redis_url, "SERVICE_SECRET": settings.service_secret,
        "KAFKA_BOOTSTRAP": kafka, "GROUP": settings.group, "SESSION_TIMEOUT_MS": "6000",
    }  # fmt: skip
    workers = []
    for number in range(count):
        env = {f"SEGMENT_{k}": v for k, v in {**values, "PORT": str(free_port())}.items()}
        argv = [sys.executable, "-m", "segment_svc", "worker"]
        workers.append(Child("worker", argv, state / f"{settings.group}-{number}.log", env=env))
    connection = await asyncpg.connect(settings.database_url)
    try:
        for worker in workers:
            worker.start()
        await _joined(kafka, settings.group, count)
        seen, began = await _done(connection), time.perf_counter()
        while (done := await _done(connection)) < EVENTS:
            if time.perf_counter() - began > 120:
                raise RuntimeError(f"{done} of {EVENTS} events after two minutes")
            await asyncio.sleep(0.02)
        return (EVENTS - seen) / (time.perf_counter() - began)
    finally:
        for worker in workers:
            worker.stop()
        await connection.close()


async def _done(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval(f"SELECT coalesce(sum(next_offset), 0) FROM {SCHEMA}.position"))


async def bench(state: Path, *, count: int = 5) -> dict[str, dict[str, Any]]:
    """Events per second, ours against the prototype, alternating: a row per number of workers."""
    made, flat = records(), flat_messages()
    servers = [Postgres(state), Valkey(state), Kafka(state)]
    for server in servers:
        server.start()
    try:
        postgres, valkey, kafka = servers
        base = postgres.url.removesuffix("postgres")
        await ensure_topics(kafka.bootstrap, topics.SHAPES)
        producer = KafkaProducer(kafka.bootstrap)
        for start in range(0, EVENTS, BATCH):
            await producer.send_all(made[start : start + BATCH])
        await producer.stop()
        found: dict[str, list[float]] = {"prototype": [], **{name: [] for name in WORKERS}}
        for _ in range(count):
            found["prototype"].append(await prototype.run(postgres.url, valkey.url, flat))
            for name, workers in WORKERS.items():
                rate = await product(base, valkey.url, kafka.bootstrap, state=state, count=workers)
                found[name].append(rate)
    finally:
        for server in reversed(servers):
            server.stop()
    return {name: _row(found, name) for name in WORKERS}


def _row(found: dict[str, list[float]], name: str) -> dict[str, Any]:
    middle, low, high = ratio(found, name, "prototype")
    rates = {"ours": found[name], "prototype": found["prototype"]}
    return {"ratio": middle, "low": low, "high": high, "goal": 0.5, "events_per_s": rates}
