"""What the fault tests share: servers to kill, a shop on them, worker processes, and a look at what lies in Kafka."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord, TopicPartition
from chassis.auth import Actor, ServiceTokens
from chassis.bus import ensure_topics
from chassis.cache import open_redis
from chassis.migrate import upgrade
from contracts import topics
from devstack.kafka import Kafka
from devstack.process import Child, free_port, listens
from devstack.servers import Postgres, Valkey
from segment_svc.app import SCHEMA
from segment_svc.settings import Settings

SECRET = "s" * 32
JSON = [("content-type", b"application/cloudevents+json")]
PATIENCE_S = 120.0
Offsets = Mapping[TopicPartition, int]


async def until(check: Callable[[], Awaitable[Any]], what: Callable[[], str], seconds: float = PATIENCE_S) -> Any:
    """Ask again and again until the answer is true; answers it. Fails with `what` when the patience is at its end."""
    end = time.monotonic() + seconds
    while not (found := await check()):
        assert time.monotonic() < end, what()
        await asyncio.sleep(0.05)
    return found


@dataclass(frozen=True)
class Servers:
    """Real ones, which may be killed and started again."""

    postgres: Postgres
    valkey: Valkey
    kafka: Kafka
    home: Path


@dataclass
class Worker:
    """A process of segment-svc."""

    child: Child
    port: int
    metrics_port: int

    @property
    def log(self) -> str:
        """Everything it said."""
        return self.child.log.read_text(errors="replace")

    def alive(self) -> bool:
        """Whether it runs."""
        return self.child.popen is not None and self.child.popen.poll() is None

    async def listening(self) -> None:
        """Wait until it answers."""

        async def answers() -> bool:
            assert self.child.popen is not None
            assert self.alive(), self.log[-2000:]
            return listens(self.child.popen.pid, self.port)

        await until(answers, lambda: f"it does not answer: {self.log[-2000:]}")

    async def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """One request of another service."""
        token = ServiceTokens(SECRET, "test").issue("segment-svc", Actor("test", "admin"))
        address, headers = f"http://127.0.0.1:{self.port}{path}", {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(timeout=20.0) as client:
            return await client.request(method, address, json=body, headers=headers)

    async def send(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Hand events in over HTTP; answers what became of them."""
        answer = await self.ask("POST", "/v1/events", {"events": events})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())


@dataclass
class Rig:
    """A shop: a database and a consumer group of its own, whose history begins at `base` in Kafka."""

    servers: Servers
    settings: Settings
    base: Offsets = field(default_factory=dict)

    def worker(self, name: str, *arguments: str, **settings: str) -> Worker:
        """Start one. `arguments`: what to run, else `-m segment_svc worker`."""
        port, metrics = free_port(), free_port()
        values = {
            "DATABASE_URL": self.settings.database_url, "REDIS_URL": self.settings.redis_url, "SERVICE_SECRET": SECRET,
            "KAFKA_BOOTSTRAP": self.settings.kafka_bootstrap, "GROUP": self.settings.group, "INSTANCE_ID": name,
            "SESSION_TIMEOUT_MS": "1500", "PORT": str(port), "METRICS_PORT": str(metrics), **settings,
        }  # fmt: skip
        env = {f"SEGMENT_{key}": value for key, value in values.items()}
        argv = [sys.executable, *(arguments or ("-m", "segment_svc", "worker"))]
        child = Child(name, argv, self.servers.home / f"{self.settings.group}-{name}.log", env=env)
        child.start()
        return Worker(child, port, metrics)

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        """Rows of the shop's database."""
        connection = await asyncpg.connect(self.settings.database_url, server_settings={"search_path": SCHEMA})
        try:
            return list(await connection.fetch(sql, *args))
        finally:
            await connection.close()

    async def document(self, identity: str) -> bytes | None:
        """What readers see of somebody: 8 bytes of version, then the document."""
        redis = open_redis(self.settings.redis_url)
        try:
            found: bytes | None = await redis.get(f"aud:{identity}")
        finally:
            await redis.aclose()
        return found

    async def waiting(self) -> dict[str, int]:
        """Rows of the outbox, by channel."""
        return dict(await self.fetch("SELECT channel, count(*)::int FROM outbox GROUP BY channel"))

    async def ends(self, *names: str) -> dict[TopicPartition, int]:
        """Where the partitions of topics end now."""
        async with self.consumer() as consumer:
            return await _ends(consumer, names)

    async def read(self, *names: str) -> list[ConsumerRecord[bytes, bytes]]:
        """Every record of topics since this shop began."""
        found: list[ConsumerRecord[bytes, bytes]] = []
        async with self.consumer() as consumer:
            wanted = {tp: end for tp, end in (await _ends(consumer, names)).items() if end > self.base[tp]}
            consumer.assign(list(wanted))
            for tp in wanted:
                consumer.seek(tp, self.base[tp])
            async with asyncio.timeout(PATIENCE_S):
                while any([await consumer.position(tp) < end for tp, end in wanted.items()]):
                    for records in (await consumer.getmany(timeout_ms=500)).values():
                        found += records
        return found

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        """A client that belongs to no group."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.kafka_bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        """A shop's own client, with nothing between it and the broker's limits."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.kafka_bootstrap, max_request_size=2 * 1024 * 1024, linger_ms=5
        )
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()


async def _ends(consumer: AIOKafkaConsumer, names: Sequence[str]) -> dict[TopicPartition, int]:
    partitions = [TopicPartition(name, number) for name in names for number in range(topics.SHAPES[name][0])]
    return dict(await consumer.end_offsets(partitions))


async def open_shop(servers: Servers) -> Rig:
    """A new shop on servers that had others before: it reads from where Kafka ends now."""
    name = f"shop{random.randrange(10**9)}"
    connection = await asyncpg.connect(servers.postgres.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    database = servers.postgres.url.removesuffix("postgres") + name
    settings = Settings(database, servers.valkey.url, SECRET, kafka_bootstrap=servers.kafka.bootstrap, group=name)
    redis = open_redis(settings.redis_url)
    await redis.flushall()
    await redis.aclose()
    await upgrade(database, schema=SCHEMA, package="segment_svc")
    await ensure_topics(settings.kafka_bootstrap, topics.SHAPES)
    rig = Rig(servers, settings)
    rig.base = await rig.ends(*topics.SHAPES)
    for tp, offset in rig.base.items():
        if tp.topic in topics.INPUT:
            await rig.fetch("INSERT INTO position VALUES ($1, $2, $3)", tp.topic, tp.partition, offset)
    return rig
