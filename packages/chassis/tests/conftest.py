"""A topic of one partition, and who writes to it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from devstack.kafka import Kafka


@pytest.fixture
async def admin(kafka: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def topic(admin: AIOKafkaAdminClient) -> str:
    name = f"t-{uuid.uuid4().hex[:10]}"
    await admin.create_topics([NewTopic(name, 1, 1)])
    return name


@pytest.fixture
async def send(kafka: Kafka, topic: str) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()

    async def send(*values: bytes, at: int | None = None) -> None:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0, timestamp_ms=at)

    send.producer = producer  # type: ignore[attr-defined]
    yield send
    await producer.stop()
