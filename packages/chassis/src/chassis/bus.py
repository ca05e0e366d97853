"""Records, producing them to Kafka, and the topics there must be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from chassis.telemetry import get_logger

log = get_logger("bus")
MOST_COPIES = 3
CONNECT_S, AWAY_S, REQUEST_MS, DAY_MS = 3.0, 3.0, 10_000, 86_400_000
# A broker takes records of up to 1,048,588 bytes unless it was told otherwise; what frames them needs a little.
MOST_RECORD, MOST_PAYLOAD = 1_000_000, 512 * 1024
# Whoever finds a batch full waits, and all who do are woken with each that goes: with 16 KiB, that was a seventh of a worker.
MOST_BATCH = 128 * 1024
NO_TOPIC = "no-such-topic"
NEVER = {
    MessageSizeTooLargeError: "too-large",
    RecordListTooLargeError: "too-large",
    InvalidTopicError: NO_TOPIC,
    TopicAuthorizationFailedError: "not-authorized",
}
Headers = tuple[tuple[str, bytes | None], ...]


def header_size(name: str, value: bytes | None) -> int:
    """Bytes of a header."""
    return len(name.encode(errors="replace")) + len(value or b"")


class Record(NamedTuple):
    """One message. `partition`, `offset` and `timestamp_ms` are -1 until a broker gave them."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int = -1
    offset: int = -1
    timestamp_ms: int = -1

    @property
    def size(self) -> int:
        """Bytes on the wire, about."""
        headers = sum(header_size(*header) + 8 for header in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers + 64


_Packed = tuple[str, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[_Packed]).decode


def pack(records: Sequence[Record]) -> list[bytes]:
    """Records to produce, as outbox payloads: none much larger than MOST_PAYLOAD, unless a record itself is."""
    return [_pack([(r.topic, r.key, r.value, list(r.headers)) for r in lot]) for lot in _lots(records)]


def _lots(records: Sequence[Record]) -> Iterator[list[Record]]:
    lot: list[Record] = []
    size = 0
    for record in records:
        if lot and size + record.size > MOST_PAYLOAD:
            yield lot
            lot, size = [], 0
        lot.append(record)
        size += record.size
    if lot:
        yield lot


def unpack(payload: bytes) -> list[Record]:
    """The records of an outbox payload. Raises ValueError (msgspec's) for other bytes."""
    return [Record(topic, key, value, tuple(headers)) for topic, key, value, headers in _unpack(payload)]


class Fenced(Exception):
    """Another consumer already went past this batch: nothing of it was written."""


async def close(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """End a client, in a task of its own: while no broker is there it would wait for one, and raise a cancellation of its own."""
    closing = asyncio.ensure_future(client.stop())
    await asyncio.wait([closing], timeout=AWAY_S)
    if closing.done() and not closing.cancelled() and (error := closing.exception()) is not None:
        log.info("bus_closed_badly", error=type(error).__name__)
    closing.cancel()


class KafkaProducer:
    """Acks from all replicas, lz4, up to 5 ms of lingering. Connects when first needed, and again.

    Not idempotent: what is sent may be sent twice anyway (an outbox is at least once, events have ids), and after a record
    that a broker refuses for its size the client's sequence has a gap, for which it refuses everything that follows.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer: AIOKafkaProducer | None = None
        self._doubtful = False
        self._starting = asyncio.Lock()

    async def stop(self) -> None:
        """Flush, as far as a broker is there, and disconnect."""
        if self._producer is not None:
            await close(self._producer)
            self._producer = None

    async def send_all(self, records: Sequence[Record]) -> list[tuple[Record, str]]:
        """Produce, and wait until every record is acknowledged or refused; answers the refused ones with a reason (slug).

        Raises aiokafka's KafkaError, OSError or TimeoutError for what may pass.
        """
        producer = await self._connected()
        try:
            unknown = await _unknown(producer, {r.topic for r in records})
            known = [r for r in records if r.topic not in unknown]
            outcomes = await asyncio.gather(*(_send(producer, r) for r in known))
        except BaseException:  # a caller that did not want to wait any longer, too
            self._doubtful = True
            raise
        refused = [(record, NO_TOPIC) for record in records if record.topic in unknown]
        return refused + [(record, reason) for record, reason in zip(known, outcomes, strict=True) if reason]

    async def _connected(self) -> AIOKafkaProducer:
        """The client. After a failure the broker must answer first: what is handed to the client while it is away piles up."""
        async with self._starting:
            if self._producer is None:
                self._producer = await self._start()
            elif self._doubtful:
                async with asyncio.timeout(CONNECT_S):
                    if not await self._producer.client.force_metadata_update():
                        raise ConnectionError("no broker answers")
                self._doubtful = False
            return self._producer

    async def _start(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            request_timeout_ms=REQUEST_MS,
            compression_type="lz4",
            linger_ms=5,
            max_batch_size=MOST_BATCH,
            max_request_size=2 * 1024 * 1024,
        )
        try:
            async with asyncio.timeout(CONNECT_S):
                await producer.start()
        except BaseException:
            await close(producer)
            raise
        return producer


async def _unknown(producer: AIOKafkaProducer, topics: set[str]) -> set[str]:
    """The topics that are not there, which the client would wait for, with everything behind them."""
    for pause_s in (0.0, 0.1, 0.3):
        missing = {topic for topic in topics if not producer.client.cluster.partitions_for_topic(topic)}
        if not missing:
            return missing
        await asyncio.sleep(pause_s)
        for topic in missing:
            await producer.client.add_topic(topic)
        if not await producer.client.force_metadata_update():
            raise ConnectionError("no broker answers")
    return missing


async def _send(producer: AIOKafkaProducer, record: Record) -> str | None:
    """None, or why this record will never be taken."""
    if record.key is None and record.value is None:
        return "empty"
    try:
        ack = await producer.send(record.topic, record.value, key=record.key, headers=list(record.headers))
        await ack
    except tuple(NEVER) as error:
        return NEVER[type(error)]
    except (KafkaError, OSError):
        raise
    except Exception as error:  # the client cannot even write it down
        log.error("bus_record_unwritable", topic=record.topic, error=type(error).__name__)
        return "unwritable"
    return None


Shapes = Mapping[str, tuple[int, int]]


async def ensure_topics(bootstrap: str, shapes: Shapes, *, patience_s: float = 30.0) -> None:
    """Create the topics that are missing, with up to three copies; apply the retention to those that are there.

    `shapes`: topic -> (partitions, days of retention); the partitions of a topic that is there stay as they are.
    Waits up to `patience_s` for a broker, then raises aiokafka's KafkaError.
    """
    until = asyncio.get_running_loop().time() + patience_s
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            await admin.start()
            missing = set(shapes) - set(await admin.list_topics())
            await _create(admin, {name: shapes[name] for name in missing})
            await _retain(admin, {name: shape for name, shape in shapes.items() if name not in missing})
            return
        except KafkaError:
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(0.5)
        finally:
            await admin.close()


async def _create(admin: AIOKafkaAdminClient, shapes: Shapes) -> None:
    copies = min(MOST_COPIES, len((await admin.describe_cluster())["brokers"]))
    wanted = [
        NewTopic(name, partitions, copies, topic_configs={"retention.ms": str(days * DAY_MS)})
        for name, (partitions, days) in shapes.items()
    ]
    if wanted:
        answer = await admin.create_topics(wanted)
        for name, code, *_ in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(name)


SET_ON_TOPIC = 1  # the source of a setting made on the topic itself, in DescribeConfigs


async def _retain(admin: AIOKafkaAdminClient, shapes: Shapes) -> None:
    """Apply the retention where it differs. AlterConfigs replaces everything set on a topic, so what is set goes along."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in shapes]
    changed = []
    for answer in await admin.describe_configs(asked) if asked else []:
        for code, _, _, name, entries in answer.resources:
            if code:
                raise for_code(code)(name)
            found = {entry[0]: entry[1] for entry in entries if entry[3] == SET_ON_TOPIC}
            wanted = {**found, "retention.ms": str(shapes[name][1] * DAY_MS)}
            if wanted != found:
                changed.append(ConfigResource(ConfigResourceType.TOPIC, name, configs=wanted))
    for answer in await admin.alter_configs(changed) if changed else []:
        for code, _, _, name in answer.resources:
            if code:
                raise for_code(code)(name)
