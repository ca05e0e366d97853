"""Transactional producers: what was taken back is never seen, and the marks of transactions are no records."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from chassis.bus_places import LAG, LOOK_S
from chassis.health import Health
from devstack.kafka import Kafka

sys.path.insert(0, str(Path(__file__).parent))
from bus_kept import Kept, consuming, until

pytestmark = pytest.mark.servers


@pytest.fixture
async def producer(kafka: Kafka, topic: str) -> AsyncIterator[AIOKafkaProducer]:
    made = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic)
    await made.start()
    yield made
    await made.stop()


async def published(producer: AIOKafkaProducer, topic: str, *values: bytes, given_up: bool = False) -> None:
    """A transaction of records of one partition."""
    with contextlib.suppress(ZeroDivisionError):
        async with producer.transaction():
            for value in values:
                await producer.send_and_wait(topic, value, partition=0, timestamp_ms=1_700_000_000_000)
            if given_up:
                raise ZeroDivisionError


def reached(kept: Kept, topic: str) -> int | None:
    """Where the partition is to be read next, once it has a place."""
    return kept.at[topic, 0].next_offset if (topic, 0) in kept.at else None


class TestTransactions:
    async def test_what_was_taken_back_is_never_seen_and_marks_are_stepped_over(
        self, kafka: Kafka, topic: str, send: Any, producer: AIOKafkaProducer
    ) -> None:
        kept, health = Kept(), Health()
        async with consuming(kafka, topic, kept, health):
            await published(producer, topic, b"never", given_up=True)
            await published(producer, topic, b"said")
            await until(lambda: reached(kept, topic) == 4)  # two records, two marks
            await until(lambda: LAG.labels(topic, 0)._value.get() == 0)
        await published(producer, topic, b"never", b"ever", given_up=True)
        async with consuming(kafka, topic, kept, health):  # which begins behind a mark, and finds no record
            await until(lambda: reached(kept, topic) == 7)
            await send(b"after")
            await until(lambda: kept.values == [b"said", b"after"])
        assert health.troubles() == {}

    async def test_what_is_not_committed_yet_is_no_lag(
        self, kafka: Kafka, topic: str, send: Any, producer: AIOKafkaProducer
    ) -> None:
        kept = Kept()
        async with consuming(kafka, topic, kept):
            await send(b"before")
            async with producer.transaction():
                await producer.send_and_wait(topic, b"said", partition=0)
                await send(b"beside")
                await until(lambda: kept.values == [b"before"])
                await asyncio.sleep(2.5)  # several looks
                assert LAG.labels(topic, 0)._value.get() == 0
                assert kept.values == [b"before"]
            await until(lambda: kept.values == [b"before", b"said", b"beside"])

    async def test_behind_a_mark_a_topic_made_anew_is_noticed_too(
        self, kafka: Kafka, topic: str, send: Any, producer: AIOKafkaProducer, admin: AIOKafkaAdminClient
    ) -> None:
        kept, health = Kept(), Health()
        async with consuming(kafka, topic, kept):
            await published(producer, topic, b"said")
            await until(lambda: kept.values == [b"said"])
            await published(producer, topic, b"never", given_up=True)
            await until(lambda: reached(kept, topic) == 4)
        await admin.delete_topics([topic])
        await asyncio.sleep(LOOK_S / 2)
        await admin.create_topics([NewTopic(topic, 1, 1)])
        await send.producer.client.force_metadata_update()
        await send(*(b"n%d" % n for n in range(8)))
        async with consuming(kafka, topic, kept, health):
            await until(lambda: bool(health.troubles()))
            assert "halted, replaced" in health.troubles()[f"partition {topic}/0"]
            assert kept.values == [b"said"]
