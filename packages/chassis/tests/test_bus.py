"""Kafka as it is: records no client reads, gaps, topics made anew, records too large, a broker that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from chassis.bus import MOST_PAYLOAD, KafkaProducer, Record, ensure_topics, pack, unpack
from chassis.bus_kafka import AT_ONCE, MOST_POLLED
from chassis.bus_places import EARLIEST, LOOK_S, Position, Slice
from chassis.health import Health
from devstack.kafka import Kafka

sys.path.insert(0, str(Path(__file__).parent))
from bus_kept import Kept, consuming, until
from test_bus_records import odd_batch, packed

servers = pytest.mark.servers
DAY_MS = 86_400_000


@servers
class TestConsumer:
    async def test_a_record_the_client_cannot_read_keeps_what_can_be_and_all_beside_it_goes_on(
        self, kafka: Kafka, topic: str, send: Any
    ) -> None:
        kept = Kept()
        await send(b"first")
        await odd_batch(send.producer, topic)
        await send(b"last")
        async with consuming(kafka, topic, kept):
            await until(lambda: b"last" in kept.values)
        assert kept.values == [b"first", b"value-0", b"value-1", b"value-2", b"last"]

    @pytest.mark.parametrize("place", ["key", "value", "header"])
    async def test_a_few_kilobytes_of_many_megabytes_are_handed_on_little_by_little(
        self, kafka: Kafka, topic: str, place: str
    ) -> None:
        large = bytes(300_000) if place == "value" else bytes(60_000)
        each = AT_ONCE * len(large)
        kept, lots = Kept(), []

        async def weighed(slices: Sequence[Slice]) -> None:
            lots.append(sum(record.size for step in slices for record in step.records))

        kept.before = weighed
        producer = AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap, compression_type="zstd", max_request_size=1 << 30
        )
        await producer.start()
        for _ in range(MOST_POLLED // each + 2):
            made = producer.create_batch()
            made._builder = packed(100, large, place)
            made._relative_offset = 100
            made.close()
            await (await producer.send_batch(made, topic, partition=0))
        await producer.stop()
        async with consuming(kafka, topic, kept):
            await until(lambda: len(kept.values) == 100 * (MOST_POLLED // each + 2))
        assert max(lots) <= MOST_POLLED + each + 100_000 < sum(lots)

    async def test_what_data_that_went_back_has_lost_is_read_again_whether_more_comes_or_not(
        self, kafka: Kafka, topic: str, send: Any
    ) -> None:
        kept = Kept()
        async with consuming(kafka, topic, kept):
            await send(b"a", b"b")
            await until(lambda: len(kept.values) == 2)
            was = kept.at[topic, 0]
            await send(b"c", b"d")
            await until(lambda: len(kept.values) == 4)
            kept.at[topic, 0] = was
            await until(lambda: len(kept.values) == 6)
            await asyncio.sleep(LOOK_S)
        assert kept.values[4:] == [b"c", b"d"]

    async def test_what_retention_took_is_a_halt_until_somebody_chooses(
        self, kafka: Kafka, topic: str, send: Any, admin: AIOKafkaAdminClient
    ) -> None:
        kept, health, name = Kept(), Health(), (topic, 0)
        await send(*(b"%d" % n for n in range(10)))
        kept.at[name] = Position(3)
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=6)})
        async with consuming(kafka, topic, kept, health):
            await until(lambda: bool(health.troubles()))
            assert "halted, gap" in health.troubles()[f"partition {topic}/0"]
            assert "gap" in str(kept.at[name].halted)
            assert kept.values == []
            kept.at[name] = Position(EARLIEST)
            await until(lambda: len(kept.values) == 4)
        assert (kept.values, health.troubles()) == ([b"6", b"7", b"8", b"9"], {})

    async def test_retention_that_overtakes_a_slow_reader_is_a_halt_too(
        self, kafka: Kafka, topic: str, send: Any, admin: AIOKafkaAdminClient
    ) -> None:
        kept, health, name = Kept(), Health(), (topic, 0)
        async with consuming(kafka, topic, kept, health):
            await send(b"0")
            await until(lambda: kept.values == [b"0"])

            async def overtaken(_: Sequence[Slice]) -> None:
                kept.before = None
                await send(b"2", b"3")
                await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=3)})
                raise ZeroDivisionError

            kept.before = overtaken
            await send(b"1")
            await until(lambda: f"partition {topic}/0" in health.troubles())
            kept.at[name] = Position(4)
            await until(lambda: f"partition {topic}/0" not in health.troubles())
            await send(b"4")
            await until(lambda: kept.values == [b"0", b"4"])

    @pytest.mark.parametrize("count", [1, 5])
    async def test_a_topic_made_anew_is_a_halt_whether_it_is_shorter_or_longer(
        self, kafka: Kafka, topic: str, send: Any, admin: AIOKafkaAdminClient, count: int
    ) -> None:
        kept, health, name = Kept(), Health(), (topic, 0)
        async with consuming(kafka, topic, kept):
            await send(b"a", b"b", b"c", at=1_700_000_000_000)
            await until(lambda: len(kept.values) == 3)
        await admin.delete_topics([topic])
        await asyncio.sleep(0.5)
        await admin.create_topics([NewTopic(topic, 1, 1)])
        await send.producer.client.force_metadata_update()
        await send(*(b"n%d" % n for n in range(count)), at=1_700_000_500_000)
        async with consuming(kafka, topic, kept, health):
            await until(lambda: bool(health.troubles()))
            assert "halted, replaced" in health.troubles()[f"partition {topic}/0"]
            await send(*(b"more" for _ in range(4)))  # the offsets fit again by themselves; the records are others
            await asyncio.sleep(2.5)
            assert len(kept.values) == 3
            kept.at[name] = Position(EARLIEST)
            await until(lambda: len(kept.values) == 7 + count)

    async def test_a_halt_does_not_end_by_itself_when_the_offsets_fit_again(
        self, kafka: Kafka, topic: str, send: Any
    ) -> None:
        kept, health, name = Kept(), Health(), (topic, 0)
        await send(b"0", b"1")
        kept.at[name] = Position(4)  # of another log, as it turns out
        async with consuming(kafka, topic, kept, health):
            await until(lambda: bool(health.troubles()))
            await send(*(b"%d" % n for n in range(2, 8)))
            await asyncio.sleep(2 * LOOK_S)
            assert (kept.values, list(health.troubles())) == ([], [f"partition {topic}/0"])
            kept.at[name] = Position(5)
            await until(lambda: kept.values == [b"5", b"6", b"7"])

    async def test_who_takes_over_a_halted_partition_stands_still_too(
        self, kafka: Kafka, topic: str, send: Any
    ) -> None:
        kept, name = Kept(), (topic, 0)
        await send(b"0", b"1")
        kept.at[name] = Position(4)  # of another log, as it turns out
        async with consuming(kafka, topic, kept):
            await until(lambda: kept.at[name].halted is not None)
        await send(*(b"%d" % n for n in range(2, 8)))
        health = Health()
        async with consuming(kafka, topic, kept, health):
            await until(lambda: bool(health.troubles()))
            assert "halted, replaced" in health.troubles()[f"partition {topic}/0"]
            kept.at[name] = Position(5)
            await until(lambda: len(kept.values) == 3)
        assert kept.values == [b"5", b"6", b"7"]

    async def test_a_batch_that_fails_is_taken_again_and_readiness_says_so_meanwhile(
        self, kafka: Kafka, topic: str, send: Any
    ) -> None:
        kept, health = Kept(), Health()
        fail = asyncio.Event()
        fail.set()

        async def broken(_: Sequence[Slice]) -> None:
            if fail.is_set():
                raise ZeroDivisionError

        kept.before = broken
        async with consuming(kafka, topic, kept, health):
            await send(b"1", b"2")
            await until(lambda: "consumer" in health.troubles())
            assert "ZeroDivisionError" in health.troubles()["consumer"]
            fail.clear()
            await until(lambda: kept.values == [b"1", b"2"])
            await until(lambda: not health.troubles())

    async def test_a_broker_that_goes_away_is_said_and_the_consumer_can_be_stopped_meanwhile(
        self, tmp_path: Path
    ) -> None:
        server, kept, health = Kafka(tmp_path), Kept(), Health()
        server.start()
        producer = KafkaProducer(server.bootstrap)
        try:
            await ensure_topics(server.bootstrap, {"t": (1, 1)})
            async with asyncio.timeout(60), consuming(server, "t", kept, health):
                await producer.send_all([Record("t", None, b"1")])
                await until(lambda: kept.values == [b"1"])
                server.kill()
                await until(lambda: health.troubles() == {"kafka": "no broker answers"})
            assert not health.troubles()
        finally:
            await producer.stop()
            server.stop()


@servers
class TestProducer:
    async def test_what_a_broker_never_takes_is_answered_and_the_rest_is_produced(
        self, kafka: Kafka, topic: str, send: Any
    ) -> None:
        producer, kept = KafkaProducer(kafka.bootstrap), Kept()
        lot = [
            Record(topic, None, b"a"),
            Record(topic, None, os.urandom(1_500_000)),
            Record(f"{topic}-none", None, b"b"),
        ]
        refused = await producer.send_all([*lot, Record(topic, b"k", b"c", (("h", None),))])
        assert [(r.topic, reason) for r, reason in refused] == [
            (f"{topic}-none", "no-such-topic"),
            (topic, "too-large"),
        ]
        await producer.stop()
        async with consuming(kafka, topic, kept):
            await until(lambda: len(kept.values) == 2)
        assert sorted(v or b"" for v in kept.values) == [b"a", b"c"]

    async def test_it_is_made_without_a_broker_and_comes_back_when_there_is_one(self, tmp_path: Path) -> None:
        server = Kafka(tmp_path)
        server.start()
        server.kill()
        producer = KafkaProducer(server.bootstrap)
        with pytest.raises((KafkaError, OSError, TimeoutError)):
            await producer.send_all([Record("t", None, b"1")])
        server.start()
        try:
            await ensure_topics(server.bootstrap, {"t": (1, 1)})
            assert await producer.send_all([Record("t", None, b"1")]) == []
            server.kill()
            with pytest.raises((KafkaError, OSError, TimeoutError)):
                async with asyncio.timeout(3):
                    await producer.send_all([Record("t", None, b"2")])
            with pytest.raises((KafkaError, OSError, TimeoutError)):
                await producer.send_all([Record("t", None, b"3")])
            server.start()
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(KafkaError, OSError, TimeoutError):
                        assert await producer.send_all([Record("t", None, b"4")]) == []
                        break
        finally:
            await producer.stop()
            server.stop()


async def set_on(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    answer = (await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))[0]
    return {entry[0]: entry[1] for entry in answer.resources[0][4]}


@servers
class TestTopics:
    async def test_the_retention_is_applied_to_a_topic_that_is_there_and_what_else_is_set_stays(
        self, kafka: Kafka, topic: str, admin: AIOKafkaAdminClient
    ) -> None:
        mine = {"segment.bytes": "1048576", "retention.ms": "5"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=mine)])
        while (await set_on(admin, topic))["retention.ms"] != "5":
            await asyncio.sleep(0.05)
        other = f"{topic}-new"
        for days in (14, 28):
            await ensure_topics(kafka.bootstrap, {topic: (4, days), other: (2, days)})
            async with asyncio.timeout(20):
                for name in (topic, other):
                    while (await set_on(admin, name))["retention.ms"] != str(days * DAY_MS):
                        await asyncio.sleep(0.05)
            assert (await set_on(admin, topic))["segment.bytes"] == "1048576"


class TestPayloads:
    def test_records_come_out_as_they_went_in_and_no_payload_is_much_larger_than_it_may_be(self) -> None:
        records = [
            Record("t", None, b"x" * n, (("h", None), ("i", b"1"))) for n in (0, 10, 300_000, 300_000, 900_000, 5)
        ]
        payloads = pack(records)
        assert [r for p in payloads for r in unpack(p)] == records
        assert [len(p) > MOST_PAYLOAD for p in payloads] == [False, False, True, False]
        with pytest.raises(ValueError, match="MessagePack"):
            unpack(b"\xc1")
