"""The adapters of a service that publishes documents: database, relay to Redis and Kafka, snapshot, application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from fastapi import FastAPI
from redis.exceptions import RedisError

from chassis import documents
from chassis.auth import ServiceTokens
from chassis.bus import KafkaProducer, pack, unpack
from chassis.cache import number_at, open_redis, raise_to
from chassis.db import PASSING, Database
from chassis.documents import FACTS, RELEASE, Document
from chassis.health import Health
from chassis.http import service_app
from chassis.outbox import Handler, Refusal, Relay, readable
from chassis.reached import Reached
from chassis.service import FOLLOW_S, Loop, repeat
from chassis.snapshot import Snapshot
from chassis.telemetry import get_logger

T = TypeVar("T")
AHEAD_S, PATIENCE_S = 1.0, 0.25
log = get_logger("publishing")
SEGMENT_VERSION = "ver:segment"


class Addresses(Protocol):
    """The settings such a service has."""

    @property
    def database_url(self) -> str: ...
    @property
    def redis_url(self) -> str: ...
    @property
    def service_secret(self) -> str: ...
    @property
    def kafka_bootstrap(self) -> str: ...


class Ahead:
    """Keeps the head after what readers were told, which stands in Redis under a key."""

    def __init__(self, db: Database, redis: Any, key: str, health: Health) -> None:
        self._db, self._redis, self._key, self._health = db, redis, key, health
        self._silent = False

    async def run(self, stop: asyncio.Event) -> None:
        """Look once a second whether readers were told of a version that the database has no more, until `stop` is set."""
        await repeat(self.look, stop, name="postgres went back", idle_s=AHEAD_S, health=self._health, most_s=FOLLOW_S)

    async def look(self) -> bool:
        """Once."""
        self._silent = False
        await self.go_on()
        return False

    async def go_on(self) -> bool:
        """A version is told of after it was committed, so a head that is lower than what was told before went back. Answers
        whether Redis said what was told; nobody waits for one that said nothing when it was asked last.
        """
        if self._silent:
            return False
        async with self._db.tx() as tx:
            version = await documents.head(tx)
        try:
            async with asyncio.timeout(PATIENCE_S):
                seen = await raise_to(self._redis, self._key, version)
        except (RedisError, OSError):  # nobody says; it is asked again
            self._silent = True
            return False
        if seen > version:
            async with self._db.tx() as tx:
                if await documents.go_on_after(tx, seen):
                    log.error("database_went_back", seen=seen)
        return True


@dataclass(frozen=True, slots=True)
class Publisher(Generic[T]):
    """What `publisher` opened."""

    db: Database
    relay: Relay
    snapshot: Snapshot[T]
    health: Health
    tokens: ServiceTokens
    app: FastAPI
    redis: Any
    ahead: Ahead
    reached: Reached

    @property
    def loops(self) -> list[Loop]:
        """What runs beside HTTP: the relay of its facts, the snapshot that follows its head, looks at that head and for Redis."""
        return [
            Loop("relay", self.relay.run), Loop("snapshot", self.snapshot.run), Loop("went back", self.ahead.run),
            Loop("reached", self.reached.run),
        ]  # fmt: skip

    async def segment_version(self) -> int | None:
        """The version of the segment definitions that readers must have for what is saved now; None while nobody says."""
        return await number_at(self.redis, SEGMENT_VERSION)


def handlers(redis: Any, producer: KafkaProducer | None, *, version_key: str) -> dict[str, Handler]:
    """Where the channels RELEASE and FACTS of an outbox go; without Kafka facts have no reader."""

    async def release(payloads: Sequence[bytes]) -> list[Refusal]:
        versions, refused = readable(payloads, lambda payload: [int(payload)])
        if versions:
            await raise_to(redis, version_key, max(versions))
        return refused

    async def facts(payloads: Sequence[bytes]) -> list[Refusal]:
        if producer is None:
            return []
        records, refused = readable(payloads, unpack)
        never = await producer.send_all(records)
        return refused + [Refusal(pack([record])[0], reason) for record, reason in never]

    return {RELEASE: release, FACTS: facts}


@asynccontextmanager
async def publisher(
    settings: Addresses, name: str, *, schema: str, version_key: str,
    build: Callable[[int, list[Document], list[dict[str, Any]]], T],
) -> AsyncIterator[Publisher[T]]:  # fmt: skip
    """Open everything; closed in reverse at the end. `version_key` is where readers find the published version."""
    db = await Database.open(settings.database_url, schema=schema)
    redis = open_redis(settings.redis_url)
    producer = KafkaProducer(settings.kafka_bootstrap) if settings.kafka_bootstrap else None
    health = Health()
    ahead = Ahead(db, redis, version_key, health)
    snapshot: Snapshot[T] = Snapshot(db, build, health, ahead=ahead.go_on)
    app = service_app(name, pings={"postgres": db.ping, "redis": redis.ping}, health=health, passing=PASSING)
    tokens = ServiceTokens(settings.service_secret, name)
    try:
        relay = Relay(db, handlers(redis, producer, version_key=version_key), health)
        opened = Publisher(db, relay, snapshot, health, tokens, app, redis, ahead, Reached(redis, health))
        await opened.reached.look()
        await ahead.look()
        await snapshot.refresh()
        yield opened
    finally:
        if producer is not None:
            await producer.stop()
        await redis.aclose()
        await db.close()
