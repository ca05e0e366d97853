"""SIGKILL at random instants while a history is replayed, and a Kafka that goes away: nothing is lost, nothing counts twice.

FAULT_ROUNDS sets how many kills while Kafka is there (2 here, 200 in make faults), FAULT_SEED repeats a history,
FAULT_EVENTS names a file of recorded events to replay instead of made-up ones, FAULT_OUTAGE_S says how long Kafka is away.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from chassis.auth import Actor
from chassis.clock import SystemClock
from contracts import topics
from segment_svc.app import adapters
from segment_svc.flows import backfill
from segment_svc.flows.save_segment import Change, save_segment

sys.path.insert(0, str(Path(__file__).parent))
from history import CONDITIONS, History, history
from rig import JSON, Rig, Servers, Worker, open_shop, until
from verdict import judge

pytestmark = [pytest.mark.servers, pytest.mark.slow]
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "2"))
SEED = int(os.environ.get("FAULT_SEED") or random.randrange(10**6))
EVENTS = int(os.environ.get("FAULT_COUNT", str(min(300_000, 1_000 + ROUNDS * 1500))))
CHUNK, AHEAD = 500, 2000
OUTAGE_S = float(os.environ.get("FAULT_OUTAGE_S", "60" if ROUNDS > 20 else "1"))


@dataclass
class Shop:
    """A shop whose history lies in Kafka, and the account of what was done to it."""

    rig: Rig
    made: History
    rng: random.Random
    kills: int = 0
    at_work: int = 0
    kafka: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def applied(self) -> int:
        """How many records are done with."""
        rows = await self.rig.fetch("SELECT coalesce(sum(next_offset), 0)::bigint FROM position")
        return int(rows[0][0]) - sum(offset for tp, offset in self.rig.base.items() if tp.topic in topics.INPUT)

    async def feed(self) -> None:
        """Put the history into Kafka, a little ahead of who reads it, so that what it mixes is read mixed."""
        async with self.rig.producer() as producer:
            for start in range(0, len(self.made.messages), CHUNK):

                async def close(start: int = start) -> bool:
                    return await self.applied() >= start - AHEAD

                await until(close, lambda: "nobody reads any more", 600)
                async with self.kafka:
                    lot = self.made.messages[start : start + CHUNK]
                    sent = [await producer.send(m.topic, m.value, m.key, m.partition, headers=JSON) for m in lot]
                    await asyncio.gather(*sent)

    async def rounds(self, name: str, *, batch: str) -> None:
        """Start a worker and kill it, again and again; Kafka goes away in the middle. Small batches take long to read it all."""
        for number in range(ROUNDS):
            if number == ROUNDS // 2:
                await self.outage(name)
            before, worker = await self.applied(), self.rig.worker(name, MAX_RECORDS=batch)
            await worker.listening()
            await asyncio.sleep(self.rng.uniform(0.1, 1.8))
            worker.child.kill()
            self.kills += 1
            self.at_work += before < await self.applied() < len(self.made.messages)

    async def outage(self, name: str) -> None:
        """While Kafka is away, and workers die, whose events come over HTTP has a document all the same."""
        async with self.kafka:
            self.rig.servers.kafka.kill()
            end, walked = time.monotonic() + OUTAGE_S, 0
            while time.monotonic() < end or not walked:
                worker = self.rig.worker(name)
                await self.walk_in(worker)
                walked += 1
                await asyncio.sleep(self.rng.uniform(0, 0.5))
                worker.child.kill()
                self.kills += 1
            assert (await self.rig.waiting()).get("facts", 0) >= walked, "facts of the outage have nowhere to be"
            self.rig.servers.kafka.start()

    async def walk_in(self, worker: Worker) -> None:
        """Somebody new comes over HTTP, and has the same document under both names."""
        who, events = self.made.walk_in()
        await worker.listening()
        await worker.send(events)

        async def drained() -> bool:
            shown = [await self.rig.document(f"{kind}:{who}") for kind in "vc"]
            return shown[0] == shown[1] is not None and "audience" not in await self.rig.waiting()

        await until(drained, lambda: f"documents wait for Kafka: {worker.log[-2000:]}", 30)

    async def finish(self, feeding: asyncio.Task[None]) -> None:
        """Let a worker that nobody kills do the rest, beside those that live."""
        last = self.rig.worker("last", MAX_RECORDS="200")
        await feeding
        ends = sum((await self.rig.ends(*topics.INPUT)).values())

        async def done() -> bool:
            assert last.alive(), last.log[-2000:]
            rows = await self.rig.fetch("SELECT sum(next_offset)::bigint FROM position")
            return int(rows[0][0]) == ends

        await until(done, lambda: f"the rest is not applied: {last.log[-2000:]}")
        last.child.stop()

    async def check(self, what: str) -> None:
        """Nothing is lost, nothing counts twice, and everything that is kept agrees."""
        v = await judge(self.rig, self.made)
        print(
            f"\nseed {SEED}, {what}: {self.kills} kills, {self.at_work} of them in the middle of the log, Kafka away for "
            f"{OUTAGE_S:.0f} s; {len(self.made.messages)} records of {len(self.made.people())} people, {v.refused} refused as "
            f"too old, {v.facts} facts, {v.names} names: {v.lost} lost, {v.double} double, {v.deadlocks} deadlocks"
        )
        assert (v.lost, v.double, v.deadlocks) == (0, 0, 0), f"seed {SEED}: lost, double, deadlocks"
        assert not v.wrong, f"seed {SEED}: {len(v.wrong)} faults, first {v.wrong[:5]}"


@pytest.fixture
async def shop(servers: Servers) -> Shop:
    made = Shop(await open_shop(servers), history(EVENTS, SEED), random.Random(SEED))
    async with adapters(replace(made.rig.settings, kafka_bootstrap=""), clock=SystemClock()) as built:
        for key, condition in CONDITIONS.items():
            body = {
                "name": key,
                "description": "",
                "owner": "",
                "websites": [],
                "status": "active",
                "applies_to": "both",
            }
            await save_segment(
                built.deps,
                Change(key, {**body, "condition": condition, "overrides": []}, None, Actor("test", "marketer")),
            )
        while await backfill.step(built.deps):
            pass
    return made


class TestKills:
    async def test_one_worker_killed_again_and_again_loses_nothing_and_counts_nothing_twice(self, shop: Shop) -> None:
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(shop.feed())
            await shop.rounds("one", batch="5")
            await shop.finish(feeding)
        await shop.check("one worker")

    async def test_a_second_worker_joining_and_dying_disturbs_nothing(self, shop: Shop) -> None:
        batch = "50"  # both have the same people in most of their batches
        steady = shop.rig.worker("steady", MAX_RECORDS=batch)
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(shop.feed())
            await shop.rounds("guest", batch=batch)
            await shop.finish(feeding)
        assert steady.alive()
        steady.child.stop()
        await shop.check("a steady worker and a second one")
