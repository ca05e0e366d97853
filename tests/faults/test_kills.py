"""SIGKILL at random instants while a history is replayed: nothing is lost, nothing counts twice.

FAULT_ROUNDS sets how many kills (8 here, 200 in make faults), FAULT_SEED repeats a run, FAULT_EVENTS names a file of
recorded events to replay instead of the seeded ones.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from chassis.bus import KafkaProducer, ensure_topics
from chassis.migrate import upgrade
from contracts import topics
from devstack.kafka import Kafka
from devstack.process import Child, free_port
from devstack.servers import Postgres, Valkey
from segment_svc.app import SCHEMA, adapters
from segment_svc.domain import profile as people
from segment_svc.flows import backfill, sweep
from segment_svc.flows.save_segment import Change, save_segment
from segment_svc.settings import Settings

from chassis.clock import SystemClock  # isort: skip

sys.path.insert(0, str(Path(__file__).parent))
from history import CONDITIONS, RECENT, History, history

pytestmark = [pytest.mark.servers, pytest.mark.slow]
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "8"))
SEED = int(os.environ.get("FAULT_SEED") or random.randrange(10**6))
EVENTS = int(os.environ.get("FAULT_COUNT", str(min(400_000, 12_000 + ROUNDS * 1500))))
CHUNK = 2000


@dataclass
class Rig:
    """What a run needs: servers of its own, settings, and the history that was produced."""

    settings: Settings
    state: Path
    made: History

    def worker(self, name: str, *, batch: str = "20") -> Child:
        values = {
            "DATABASE_URL": self.settings.database_url, "REDIS_URL": self.settings.redis_url, "SERVICE_SECRET": "s" * 32,
            "KAFKA_BOOTSTRAP": self.settings.kafka_bootstrap, "GROUP": self.settings.group, "INSTANCE_ID": name,
            "SESSION_TIMEOUT_MS": "1500", "MAX_RECORDS": batch, "PORT": str(free_port()),
        }  # fmt: skip
        env = {f"SEGMENT_{key}": value for key, value in values.items()}
        child = Child(name, [sys.executable, "-m", "segment_svc", "worker"], self.state / f"{name}.log", env=env)
        child.start()
        return child

    async def left(self) -> int:
        """How many records nobody has applied yet."""
        connection = await asyncpg.connect(self.settings.database_url)
        done = await connection.fetchval(f"SELECT coalesce(sum(next_offset), 0) FROM {SCHEMA}.position")
        await connection.close()
        return len(self.made.records) - int(done)


@pytest.fixture
async def rig(postgres: Postgres, tmp_path: Path) -> Any:
    servers = [Valkey(tmp_path), Kafka(tmp_path)]
    for server in servers:
        server.start()
    name = f"kills{random.randrange(10**9)}"
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    database = postgres.url.removesuffix("postgres") + name
    settings = Settings(database, servers[0].url, "s" * 32, kafka_bootstrap=servers[1].bootstrap, group=name)
    await upgrade(database, schema=SCHEMA, package="segment_svc")
    await ensure_topics(settings.kafka_bootstrap, topics.SHAPES)
    made = history(EVENTS)
    producer = KafkaProducer(settings.kafka_bootstrap)
    for start in range(0, len(made.records), CHUNK):
        await producer.send_all(made.records[start : start + CHUNK])
    await producer.stop()
    async with adapters(Settings(database, servers[0].url, "s" * 32), clock=SystemClock()) as built:
        for key, condition in CONDITIONS.items():
            body = {
                "name": key,
                "description": "",
                "owner": "",
                "websites": [],
                "status": "active",
                "applies_to": "both",
            }
            await save_segment(built.deps, Change(key, {**body, "condition": condition, "overrides": []}, None, "test"))
        while await backfill.step(built.deps):
            pass
    yield Rig(settings, tmp_path, made)
    for server in reversed(servers):
        server.stop()


def lives(rng: random.Random) -> Iterator[float]:
    """How long each worker may live, in seconds from its start: most die in the middle of their work."""
    for _ in range(ROUNDS):
        yield rng.uniform(0.9, 2.6)


async def finish(rig: Rig) -> None:
    last = rig.worker("last", batch="2000")
    until = time.monotonic() + 300
    while await rig.left() > 0:
        alive = last.popen is not None and last.popen.poll() is None
        assert alive, last.log.read_text()[-2000:]
        assert time.monotonic() < until, "the rest was not applied in time"
        time.sleep(0.2)
    last.stop()


async def check(rig: Rig) -> None:
    """Compare with the recomputation: every count of every visitor, and every membership."""
    plain = Settings(rig.settings.database_url, rig.settings.redis_url, "s" * 32)
    async with adapters(plain, clock=SystemClock()) as built:
        before = int(time.time() * 1000)
        while await sweep.sweep(built.deps):
            pass
        after = int(time.time() * 1000)
        async with built.deps.db.tx() as tx:
            states = await tx.fetch("SELECT profile, state FROM profile")
            rows = await tx.fetch("SELECT s.key, m.profile FROM membership m JOIN segment s ON s.id = m.segment_id")
    counts: Counter[tuple[str, str]] = Counter()
    for row in states:
        person = people.decode(row["state"])
        for kind, entries in person.log.items():
            counts[row["profile"][2:], kind] = len(entries) + person.dropped.get(kind, (0, 0))[0]
    wanted = rig.made.counts()
    lost, double = wanted - counts, counts - wanted
    verdict = (sum(lost.values()), sum(double.values()))
    assert verdict == (0, 0), f"seed {SEED}: lost and double"
    for key in CONDITIONS:
        found = {row["profile"][2:] for row in rows if row["key"] == key}
        sure_in = rig.made.members(key, before) & rig.made.members(key, after)
        sure_out = set(dict.fromkeys(v for v, _, _, _ in rig.made.rows)) - rig.made.members(key, before)
        assert sure_in <= found, f"seed {SEED}: {len(sure_in - found)} missing from {key}"
        assert not found & sure_out, f"seed {SEED}: {len(found & sure_out)} too many in {key}"
    assert rig.made.members(RECENT, after), "the history must exercise the window"


class TestKills:
    async def test_one_worker_killed_again_and_again_loses_nothing_and_counts_nothing_twice(self, rig: Rig) -> None:
        rng, at_work = random.Random(SEED), 0
        for life in lives(rng):
            worker = rig.worker("one")
            time.sleep(life)
            worker.kill()
            at_work += await rig.left() > 0
        await finish(rig)
        await check(rig)
        print(
            f"\nseed {SEED}: {ROUNDS} kills, {at_work} of them with work left, {len(rig.made.records)} records: 0 lost, 0 double"
        )

    async def test_a_second_worker_joining_and_dying_disturbs_nothing(self, rig: Rig) -> None:
        rng, at_work = random.Random(SEED + 1), 0
        steady = rig.worker("steady")
        for life in lives(rng):
            guest = rig.worker("guest")
            time.sleep(life)
            guest.kill()
            at_work += await rig.left() > 0
        steady.kill()
        await finish(rig)
        await check(rig)
        print(f"\nseed {SEED}: {ROUNDS} kills of the second worker, {at_work} with work left: 0 lost, 0 double")
