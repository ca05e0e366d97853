"""A poison record, rule and event in a running shop, and servers that go away: how soon everything else flows, what is seen.

One worker process serves all the tests; somebody new views a product every 50 ms all the while. With -s it prints the
seconds until records of every partition are applied again, and what an operator sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition
from contracts import topics
from contracts.events.v1 import storefront_pb2

sys.path.insert(0, str(Path(__file__).parent))
from broken_worker import FUSE, LIT, POISON
from rig import JSON, Rig, Servers, Worker, open_shop, until

pytestmark = [pytest.mark.servers, pytest.mark.slow]
BROWSE, CART = topics.STOREFRONT_BROWSE, topics.STOREFRONT_CART
POISONED = 'segment_dead_letters_total{reason="poison"}'
BROKEN = str(Path(__file__).with_name("broken_worker.py"))
VIEWED = {"events": {"type": "product_view", "count": {"op": "gte", "value": 1}}}
EUR = {"amount": 100, "currency": "EUR"}
USUAL: dict[str, tuple[str, Any]] = {
    BROWSE: ("product_view", {"sku": "A"}),
    CART: ("add_to_cart", {"item": {"sku": "A", "quantity": 1, "price": EUR}}),
    topics.COMMERCE_ORDER: ("order_placed", {"order_id": "o", "status": "placed", "grand_total": EUR}),
    topics.COMMERCE_CUSTOMER: ("group_assigned", {"group": "vip"}),
}
numbers = count()


def event(who: str, kind: str, data: Any) -> dict[str, Any]:
    """Of now, with an id of its own."""
    moment, name = datetime.now(UTC).isoformat(), f"p{next(numbers)}"
    return {"id": name, "source": "poison", "type": kind, "time": moment, "subject": who, "data": data}


def view(who: str, sku: str = "A") -> dict[str, Any]:
    """Somebody views a product."""
    return event(f"visitor:{who}", "product_view", {"sku": sku})


@dataclass
class Shop:
    """A shop at work."""

    rig: Rig
    producer: AIOKafkaProducer
    worker: Worker
    traffic: list[str] = field(default_factory=list)

    async def put(self, tp: tuple[str, int], value: Any, headers: Any = JSON) -> int:
        """Produce to a partition, anything but bytes as JSON; answers the offset."""
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return int((await self.producer.send_and_wait(tp[0], raw, partition=tp[1], headers=headers)).offset)

    async def between(self, tp: tuple[str, int], *values: Any, headers: Any = JSON) -> list[int]:
        """Produce values to a partition, each between two neighbours, who must be applied; answers the offsets."""
        names, offsets = [f"near{next(numbers)}"], []
        await self.put(tp, event(f"visitor:{names[0]}", *USUAL[tp[0]]))
        for value in values:
            offsets.append(await self.put(tp, value, headers))
            names.append(f"near{next(numbers)}")
            await self.put(tp, event(f"visitor:{names[-1]}", *USUAL[tp[0]]))
        await self.shown(names)
        return offsets

    async def shown(self, names: Sequence[str]) -> None:
        """Wait until readers see something of these visitors."""

        async def all_shown() -> bool:
            assert self.worker.alive(), self.worker.log[-2000:]
            return all([await self.rig.document(f"v:{name}") for name in names])

        await until(all_shown, lambda: f"not applied: {names}: {self.worker.log[-3000:]}")

    async def flows(self, since: float, what: str, *, but: tuple[str, int] | None = None) -> None:
        """Wait until what is produced to any partition is applied, and say how long that took."""
        everywhere = [(t, n) for t in topics.INPUT for n in range(topics.SHAPES[t][0])]
        names = {tp: f"flow{next(numbers)}" for tp in everywhere if tp != but}
        events = [(tp, event(f"visitor:{name}", *USUAL[tp[0]])) for tp, name in names.items()]
        await asyncio.gather(*(self.put(tp, e) for tp, e in events))
        await self.shown(list(names.values()))
        print(f"\n{what}: everything else flows after {time.monotonic() - since:.1f} s", end="")

    async def ready(self) -> tuple[int, dict[str, str]]:
        """What /readyz says; nothing while it does not listen."""
        try:
            answer = await self.worker.ask("GET", "/readyz")
        except httpx.TransportError:
            return 0, {}
        return answer.status_code, answer.json()

    async def unready(self, *parts: str) -> None:
        """Wait until /readyz names these parts as what is wrong."""

        async def named() -> bool:
            status, said = await self.ready()
            wrong = {part: cause for part, cause in said.items() if cause != "ok"}
            if status != 503 or not wrong.keys() >= set(parts):
                return False
            print(f"\n  /readyz: {wrong}", end="")
            return True

        await until(named, lambda: f"/readyz does not name {parts}: {self.worker.log[-3000:]}")

    async def ready_again(self) -> None:
        """Wait until nothing is wrong."""

        async def fine() -> bool:
            return (await self.ready())[0] == 200

        await until(fine, lambda: f"/readyz is not ok again: {self.worker.log[-3000:]}")

    async def metric(self, name: str) -> float:
        """One sample of what the worker measures."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{self.worker.metrics_port}/metrics")).text
        found = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == name]
        return float(found[0]) if found else 0.0

    def said(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The log lines of an event with these fields."""
        lines = [json.loads(line) for line in self.worker.log.splitlines() if line.startswith("{")]
        return [x for x in lines if x["event"] == name and x.items() >= fields.items()]

    async def dead(self, tp: tuple[str, int], offsets: Sequence[int]) -> list[tuple[bytes, dict[str, bytes]]]:
        """Value and headers of the dead letters of these records of a partition; after the first there must be no others."""

        async def arrived() -> list[tuple[int, bytes, dict[str, bytes]]]:
            found = [(r.value or b"", dict(r.headers)) for r in await self.rig.read(f"{tp[0]}.dlq")]
            here = [(int(h["dlq-offset"]), v, h) for v, h in found if int(h["dlq-partition"]) == tp[1]]
            late = [letter for letter in here if letter[0] >= min(offsets)]
            return late if {letter[0] for letter in late} >= set(offsets) else []

        found = await until(arrived, lambda: f"no dead letters for {offsets}: {self.worker.log[-3000:]}")
        assert [offset for offset, _, _ in found] == list(offsets)
        return [(value, headers) for _, value, headers in found]

    async def save(self, key: str, condition: Any) -> httpx.Response:
        """Create a segment, and wait until it serves when it was accepted."""
        body = {"key": key, "name": key, "status": "active", "condition": condition}
        answer = await self.worker.ask("POST", "/v1/segments", body)
        if answer.status_code == 201:

            async def live() -> bool:
                return bool((await self.worker.ask("GET", f"/v1/segments/{key}")).json()["live_version"])

            await until(live, lambda: f"{key} does not serve: {self.worker.log[-3000:]}")
        return answer


@contextlib.asynccontextmanager
async def traffic(shop: Shop) -> AsyncIterator[None]:
    """Somebody new views a product every 50 ms; in the end each view must have been applied once."""
    sent: list[asyncio.Future[Any]] = []

    async def run() -> None:
        while True:
            name = f"busy{len(sent)}"
            shop.traffic.append(name)
            sent.append(
                await shop.producer.send(BROWSE, json.dumps(view(name)).encode(), key=name.encode(), headers=JSON)
            )
            await asyncio.sleep(0.05)

    running = asyncio.create_task(run())
    yield
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await asyncio.gather(*sent)


@pytest.fixture(scope="module")
async def shop(servers: Servers) -> AsyncIterator[Shop]:
    rig = await open_shop(servers)
    async with rig.producer() as producer:
        made = Shop(rig, producer, rig.worker("shop", BROKEN, "all"))
        try:
            await made.worker.listening()
            await made.save("viewers", VIEWED)
            async with traffic(made):
                await made.flows(time.monotonic(), "a shop at work")
                yield made
            await made.shown(made.traffic)
        finally:
            made.worker.child.stop()
    rows = await rig.fetch("SELECT profile, count(*)::int FROM activity WHERE profile LIKE 'v:busy%' GROUP BY 1")
    assert dict(rows) == dict.fromkeys((f"v:{name}" for name in made.traffic), 1), "the traffic is not applied once"
    print(f"\n{len(made.traffic)} views of the traffic beside it, each applied once")


def nan() -> bytes:
    """A number that is none, in protobuf."""
    message = storefront_pb2.Custom(name="x")
    message.props["n"] = float("nan")
    return message.SerializeToString()


class TestPoison:
    async def test_records_nobody_can_read_are_one_dead_letter_each(self, shop: Shop) -> None:
        began, tp = time.monotonic(), (BROWSE, 1)
        huge = os.urandom(1_048_500)
        plain = await shop.between(
            tp,
            event("visitor:bad", "custom", {"name": "x", "props": {"n": 12345678901234567890123456}}),
            event("visitor:bad", "add_to_cart", {"item": {"sku": "A", "quantity": "--5"}}),
        )
        binary = [("content-type", b"application/protobuf"), ("ce_id", b"n"), ("ce_source", b"s"), ("ce_type", b"custom"),
                  ("ce_time", b"2026-01-01T00:00:00Z"), ("ce_subject", b"visitor:bad")]  # fmt: skip
        proto = await shop.between(tp, nan(), headers=binary)
        null = await shop.between(tp, b"{", headers=[("content-type", None), ("x", None)])
        large = await shop.between(tp, huge, headers=[])
        await shop.flows(began, "records nobody can read")
        letters = await shop.dead(tp, plain + proto + null + large)
        reasons = [headers["dlq-reason"].decode() for _, headers in letters]
        print(f"\n  dead letters: {reasons}", end="")
        assert "poison" not in reasons
        assert letters[3][1]["x"] is None
        cut, marks = letters[4]
        assert huge.startswith(cut)
        assert int(marks["dlq-cut"]) >= len(huge) > len(cut) > 0
        assert (await shop.ready())[0] == 200
        assert await shop.rig.document("v:bad") is None

    async def test_an_event_that_breaks_the_program_is_set_aside_by_name(self, shop: Shop) -> None:
        began, tp = time.monotonic(), (BROWSE, 2)
        offsets = await shop.between(tp, view("victim", POISON), view("victim", POISON))
        await shop.flows(began, "two events that break the program")
        letters = await shop.dead(tp, offsets)
        assert {headers["dlq-reason"] for _, headers in letters} == {b"poison"}
        assert await shop.metric(POISONED) == 2
        lines = shop.said("event_poison", topic=BROWSE, partition=2)
        print(f"\n  log: {lines[0]}", end="")
        assert [(x["offset"], x["error"]) for x in lines] == [(offset, "ZeroDivisionError") for offset in offsets]
        assert (await shop.ready())[0] == 200

    async def test_a_rule_that_raises_is_taken_out_and_named_and_the_others_go_on(self, shop: Shop) -> None:
        assert (await shop.save("boom", {"attribute": FUSE, "op": "eq", "value": "x"})).status_code == 201
        not_boom = {"segment": {"op": "not_in", "keys": ["boom"]}}
        assert (await shop.save("not-boom", not_boom)).status_code == 201
        began = time.monotonic()
        lit = event("customer:lit", "identify", {"attributes": {FUSE: LIT}})
        await shop.between((topics.COMMERCE_CUSTOMER, 0), lit)
        await shop.flows(began, "a rule that raises")
        found = (await shop.worker.ask("GET", "/v1/segments")).json()["segments"]
        causes = {s["key"]: s["quarantined"] for s in found}
        print(f"\n  GET /v1/segments: {causes}", end="")
        assert causes == {"viewers": None, "boom": "ZeroDivisionError", "not-boom": "refers to boom"}
        assert await shop.rig.document("c:lit"), "the event itself must be applied"
        assert len(shop.said("segment_quarantined", segment="boom", cause="ZeroDivisionError")) == 1
        assert (await shop.ready())[0] == 200

    async def test_a_pattern_that_takes_other_engines_years_takes_no_time(self, shop: Shop) -> None:
        answer = await shop.save("years", {"attribute": "x", "op": "regex", "value": "((a+))+$"})
        assert answer.status_code in (201, 422), answer.text
        began = time.monotonic()
        long = event("visitor:long", "identify", {"attributes": {"x": "a" * 25 + "!"}})
        await shop.between((topics.COMMERCE_CUSTOMER, 1), long)
        await shop.flows(began, f"a pattern that takes other engines years ({answer.status_code} at save)")
        assert await shop.rig.document("v:long")


class TestServersThatGoAway:
    async def test_connections_cut_again_and_again_are_never_blamed_on_an_event(self, shop: Shop) -> None:
        before, began = await shop.metric(POISONED), time.monotonic()
        for _ in range(20):
            await shop.rig.fetch(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()"""
            )
            await asyncio.sleep(0.1)
        await shop.flows(began, "connections cut for two seconds")
        assert await shop.metric(POISONED) == before
        await shop.ready_again()

    async def test_a_killed_postgresql_is_named_and_everything_is_applied_when_it_is_back(self, shop: Shop) -> None:
        shop.rig.servers.postgres.kill()
        await shop.unready("postgres")
        await asyncio.sleep(1)
        shop.rig.servers.postgres.start()
        began = time.monotonic()
        await shop.flows(began, "PostgreSQL is back")
        await shop.ready_again()

    async def test_a_killed_kafka_is_named_and_documents_do_not_wait_for_it(self, shop: Shop) -> None:
        shop.rig.servers.kafka.kill()
        began = time.monotonic()
        await shop.worker.send([view("guest")])
        await shop.shown(["guest"])
        print(f"\nKafka is away: a document after {time.monotonic() - began:.1f} s", end="")
        await shop.unready("outbox facts", "kafka")
        await shop.worker.send([view("guest2")])
        await shop.shown(["guest2"])
        waiting = await shop.rig.waiting()
        assert waiting.get("facts", 0) >= 2
        assert "audience" not in waiting
        shop.rig.servers.kafka.start()
        began = time.monotonic()
        await shop.flows(began, "Kafka is back")
        await shop.ready_again()

        async def told() -> bool:
            facts = [json.loads(r.value or b"")["data"] for r in await shop.rig.read(topics.SEGMENT_MEMBERSHIP)]
            return {f["profile"] for f in facts if f["segment"] == "viewers"} >= {"v:guest", "v:guest2"}

        await until(told, lambda: "the facts of the outage did not arrive")

    async def test_a_partition_whose_records_are_gone_stands_still_until_somebody_chooses(self, shop: Shop) -> None:
        topic, number = tp = CART, 2
        shop.worker.child.kill()
        offsets = [await shop.put(tp, event(f"visitor:gone{i}", *USUAL[CART])) for i in range(3)]
        admin = AIOKafkaAdminClient(bootstrap_servers=shop.rig.servers.kafka.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(*tp): RecordsToDelete(before_offset=offsets[-1])})
        await admin.close()
        shop.worker = shop.rig.worker("shop", BROKEN, "all")
        began = time.monotonic()
        await shop.flows(began, "a partition whose records are gone (start of the worker included)", but=tp)
        await shop.unready(f"partition {topic}/{number}")
        assert await shop.metric(f'consumer_halted{{partition="{number}",topic="{topic}"}}') == 1
        found = (await shop.worker.ask("GET", "/v1/positions")).json()["positions"]
        assert [(p["topic"], p["partition"]) for p in found if p["halted"]] == [tp]
        assert len(shop.said("trouble", subject=f"partition {topic}/{number}")) == 1
        assert await shop.rig.document("v:gone2") is None
        began = time.monotonic()
        chosen = await shop.worker.ask("PUT", f"/v1/positions/{topic}/{number}", {"from": "earliest"})
        assert chosen.status_code == 204, chosen.text
        await shop.shown(["gone2"])
        await shop.flows(began, "somebody chose")
        await shop.ready_again()
        assert await shop.metric(f'consumer_halted{{partition="{number}",topic="{topic}"}}') == 0
