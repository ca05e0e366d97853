"""What gets in, and from where: topics and their types, and partitions that wait for somebody to choose."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import TopicPartition
from chassis.bus_places import EARLIEST, Places, Position, Slice
from chassis.health import Health
from contracts import topics
from segment_svc.flows.ingest import Ingest
from segment_svc.positions import StoredPositions

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import event, records

pytestmark = pytest.mark.servers
BROWSE = topics.STOREFRONT_BROWSE
PLACE = f"/v1/positions/{BROWSE}/0"
TP = TopicPartition(BROWSE, 0)


class Broker:
    """As much of a Kafka consumer as places need: a log from `first` to `end`, and whether it is read."""

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end, self.at, self.reading = first, end, -1, True

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.at = offset

    def pause(self, _: TopicPartition) -> None:
        self.reading = False

    def resume(self, _: TopicPartition) -> None:
        self.reading = True

    async def beginning_offsets(self, wanted: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(wanted, self.first)

    async def end_offsets(self, wanted: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(wanted, self.end)


async def owner(kept: StoredPositions, kafka: Broker) -> Places:
    """Whoever gets the partition, by a start or a rebalance."""
    places = Places(kept, Health())
    places.assign(kafka, [TP])
    await places.place(kafka)
    return places


async def halted(client: httpx.AsyncClient) -> str | None:
    return (await client.get("/v1/positions")).json()["positions"][0]["halted"]


class TestHalt:
    @pytest.fixture
    async def kept(self, service: Any) -> StoredPositions:
        """A partition that was read to 100, nothing after it yet."""
        kept = StoredPositions(service.deps.db)
        await kept.read([TP])
        await kept.found(TP, 100)
        return kept

    async def test_a_halt_outlives_the_owner_and_ends_when_somebody_chooses(
        self, client: httpx.AsyncClient, kept: StoredPositions
    ) -> None:
        kafka = Broker(0, 0)  # made anew
        await owner(kept, kafka)
        assert (kafka.reading, await halted(client)) == (
            False,
            "replaced: the topic is not the one that was read before",
        )
        kafka.end = 150
        places = await owner(kept, kafka)
        assert (kafka.reading, places.running()) == (False, {})
        assert list(places.health.troubles()) == [f"partition {BROWSE}/0"]
        assert (await client.put(PLACE, json={"from": "earliest"})).status_code == 204
        assert await halted(client) is None
        places = await owner(kept, kafka)
        assert (kafka.reading, kafka.at, places.running(), places.health.troubles()) == (True, 0, {TP: 0}, {})

    async def test_a_choice_made_while_no_worker_runs_ends_the_halt(
        self, client: httpx.AsyncClient, kept: StoredPositions
    ) -> None:
        await owner(kept, Broker(120, 200))
        assert str(await halted(client)).startswith("gap")
        assert (await client.put(PLACE, json={"from": 130})).status_code == 204
        kafka = Broker(120, 200)
        await owner(kept, kafka)
        assert (kafka.reading, kafka.at, await halted(client)) == (True, 130, None)

    async def test_who_still_thinks_of_an_old_place_halts_nothing(
        self, client: httpx.AsyncClient, kept: StoredPositions
    ) -> None:
        await kept.halt(TP, 99, "gap")
        assert await kept.read([TP]) == {TP: Position(100)}

    async def test_only_a_halted_partition_takes_a_choice(
        self, client: httpx.AsyncClient, kept: StoredPositions
    ) -> None:
        answer = await client.put(PLACE, json={"from": "earliest"})
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:footfall:problem:not-halted")
        answer = await client.put(f"/v1/positions/{BROWSE}/7", json={"from": "earliest"})
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:footfall:problem:not-found")
        assert (await kept.read([TP]))[TP].next_offset == 100

    @pytest.mark.parametrize("bad", [True, 1.0, "1", -1, 2**53, 2**61, None, [], {}, "latest"])
    async def test_a_choice_that_is_none_is_refused_at_the_field(
        self, client: httpx.AsyncClient, kept: StoredPositions, bad: Any
    ) -> None:
        await kept.halt(TP, 100, "gap")
        answer = await client.put(PLACE, json={"from": bad})
        assert (answer.status_code, [e["pointer"] for e in answer.json()["errors"]]) == (422, ["/from"])

    @pytest.mark.parametrize(("good", "offset"), [("earliest", EARLIEST), (0, 0), (2**53 - 1, 2**53 - 1)])
    async def test_a_choice_is_kept(
        self, client: httpx.AsyncClient, kept: StoredPositions, good: Any, offset: int
    ) -> None:
        await kept.halt(TP, 100, "gap")
        assert (await client.put(PLACE, json={"from": good})).status_code == 204
        assert await kept.read([TP]) == {TP: Position(offset)}


class TestTopics:
    @pytest.mark.parametrize("topic", topics.INPUT)
    async def test_a_topic_carries_its_own_types_and_what_else_is_in_it_is_a_dead_letter(
        self, service: Any, topic: str
    ) -> None:
        samples = {
            BROWSE: [event(1), event(2, "custom", {"name": "x"})],
            topics.STOREFRONT_CART: [event(3, "add_to_cart", {"item": {"sku": "A", "quantity": 1}})],
            topics.COMMERCE_ORDER: [event(4, "order_placed", {"order_id": "o"}, who="customer:c")],
            topics.COMMERCE_CUSTOMER: [event(5, "identify", {"attributes": {"a": 1}}, who="customer:c")],
        }
        every = [made for some in samples.values() for made in some]
        found = [r._replace(topic=topic) for r in records(*every)]
        receipt = await Ingest(service.deps, logged=False)([Slice(topic, 0, 0, len(found), found)])
        assert receipt.outcomes == {"applied": len(samples[topic])}
        assert {d.reason for d in receipt.dead} == {"wrong-topic"}
        assert [every[d.record.offset] for d in receipt.dead] == [e for e in every if e not in samples[topic]]
