"""Records, and producing them to Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

MOST_COPIES = 3


class Record(NamedTuple):
    """One message. `partition`, `offset` and `timestamp_ms` are -1 until a broker gave them."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int = -1
    offset: int = -1
    timestamp_ms: int = -1


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[tuple[str, bytes, bytes, list[tuple[str, bytes]]]]).decode


def pack(records: Sequence[Record]) -> bytes:
    """Records to produce, as one outbox payload."""
    return _pack([(r.topic, r.key or b"", r.value or b"", list(r.headers)) for r in records])


def unpack(payloads: Sequence[bytes]) -> list[Record]:
    """The records of outbox payloads."""
    return [
        Record(topic, key or None, value, tuple(headers))
        for payload in payloads
        for topic, key, value, headers in _unpack(payload)
    ]


class Fenced(Exception):
    """Another consumer already went past this batch: nothing of it was written."""


class KafkaProducer:
    """Idempotent producer: acks from all replicas, lz4, up to 5 ms of lingering."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect. Raises aiokafka's KafkaConnectionError when no broker answers."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            linger_ms=5,
            max_request_size=2 * 1024 * 1024,
        )
        await producer.start()
        self._producer = producer

    async def stop(self) -> None:
        """Flush and disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def send_all(self, records: Sequence[Record]) -> None:
        """Produce and wait until every record is acknowledged; raises the first error otherwise."""
        if self._producer is None:
            raise ConnectionError("the producer is not started")
        acks = [await self._producer.send(r.topic, r.value, key=r.key, headers=list(r.headers)) for r in records]
        await asyncio.gather(*acks)


async def ensure_topics(
    bootstrap: str, partitions: Mapping[str, int], *, compacted: frozenset[str] = frozenset(), patience_s: float = 30.0
) -> None:
    """Create the topics that are missing, with up to three copies; existing ones stay as they are.

    Waits up to `patience_s` for a broker, then raises aiokafka's KafkaError.
    """
    until = asyncio.get_running_loop().time() + patience_s
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            await admin.start()
            await _create(admin, partitions, compacted)
            return
        except KafkaError:
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(0.5)
        finally:
            await admin.close()


async def _create(admin: AIOKafkaAdminClient, partitions: Mapping[str, int], compacted: frozenset[str]) -> None:
    there = set(await admin.list_topics())
    copies = min(MOST_COPIES, len((await admin.describe_cluster())["brokers"]))
    wanted = [
        NewTopic(name, count, copies, topic_configs={"cleanup.policy": "compact"} if name in compacted else {})
        for name, count in partitions.items()
        if name not in there
    ]
    if wanted:
        answer = await admin.create_topics(wanted)
        for name, code, *_ in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(name)
