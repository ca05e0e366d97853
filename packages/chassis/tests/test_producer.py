"""When a producer asks whether its broker is there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from chassis.bus import KafkaProducer, Record


class Broker:
    """A client whose broker takes everything at once, or, while it is `away`, nothing. Counts who asks whether it is there."""

    def __init__(self) -> None:
        self.asked, self.away = 0, False
        self.client = self.cluster = self

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0}

    async def force_metadata_update(self) -> bool:
        self.asked += 1
        await asyncio.sleep(0)
        return not self.away

    async def send(self, *_: Any, **__: Any) -> asyncio.Future[None]:
        if self.away:
            raise KafkaError("away")
        return asyncio.ensure_future(asyncio.sleep(0.001))


class TestDoubt:
    async def test_hand_overs_beside_each_other_ask_for_the_broker_only_after_one_of_them_failed(self) -> None:
        producer, broker = KafkaProducer(""), Broker()
        producer._producer = broker  # type: ignore[assignment]

        async def healthy() -> None:
            for _ in range(5):
                assert await producer.send_all([Record("t", None, b"1")]) == []

        await asyncio.gather(*(healthy() for _ in range(5)))
        assert broker.asked == 0
        broker.away = True
        for error in (KafkaError, ConnectionError, ConnectionError):
            with pytest.raises(error):
                await producer.send_all([Record("t", None, b"1")])
        assert broker.asked == 2
        broker.away = False
        await asyncio.gather(*(healthy() for _ in range(5)))
        assert broker.asked == 3

    async def test_a_caller_that_did_not_wait_leaves_a_doubt(self) -> None:
        producer, broker = KafkaProducer(""), Broker()
        producer._producer = broker  # type: ignore[assignment]
        waiting = asyncio.ensure_future(producer.send_all([Record("t", None, b"1")]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert (waiting.cancelled(), broker.asked) == (True, 0)
        await producer.send_all([Record("t", None, b"1")])
        assert broker.asked == 1
