"""Many at work on the same people: who waits for whom, and what takes effect when."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.bus_places import Slice
from chassis.clock import ManualClock
from segment_svc import definitions, store
from segment_svc.flows import backfill, sweep
from segment_svc.flows.ingest import Ingest

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import START, VIEWED, Log, event, make, members, records, shown

pytestmark = pytest.mark.servers
DAY = 86_400_000
WEEK = {"events": {**VIEWED["events"], "window": {"last": "P7D"}}}


@pytest.fixture
def log(service: Any) -> Log:
    return Log(service)


class TestAhead:
    async def test_a_group_of_a_clock_that_is_fast_holds_from_its_instant_on(
        self, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await log.give(event(1, "group_assigned", {"group": "Wholesale"}, at=START + 2000, who="customer:c"))
        assert (await shown(service, "c:c")).group == ""
        clock.set(START + 1999)
        assert await sweep.sweep(service.deps) == 0
        clock.set(START + 2000)
        assert await sweep.sweep(service.deps) == 1
        assert (await shown(service, "c:c")).group == "Wholesale"
        assert await sweep.sweep(service.deps) == 0

    async def test_one_purpose_leaves_the_others_alone(self, service: Any, log: Log) -> None:
        flags = []
        for number, said in enumerate(({"personalisation": False}, {"analytics": False}, {"personalisation": True})):
            await log.give(
                event(number, "consent_changed", {"purposes": said}, at=START + number - 10, who="customer:c")
            )
            flags.append((await shown(service, "c:c")).consent)
        assert flags == [0b01, 0b11, 0b10]


class TestLocks:
    async def test_who_only_reads_waits_for_nobody(self, client: httpx.AsyncClient, service: Any, log: Log) -> None:
        await make(client, service, "viewers")
        await log.give(event(1))
        paths = ["/v1/profiles/v:ann", "/v1/segments/viewers/explain?profile=v:ann", "/v1/definitions", "/v1/segments"]
        async with service.deps.db.tx() as tx:
            await definitions.alone(tx, service.deps.clock)
            await store.load(tx, ["v:ann"])
            async with asyncio.timeout(5):
                answers = [await client.get(path) for path in paths]
                answers.append(await client.post("/v1/segments/preview", json={"condition": VIEWED}))
        assert [a.status_code for a in answers] == [200] * 5

    async def test_the_sweep_passes_people_somebody_works_on(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await make(client, service, "week", {"events": {**VIEWED["events"], "window": {"last": "P7D"}}})
        await log.give(event(1), event(2, who="visitor:bob"))
        clock.advance(8 * 86_400_000)
        async with service.deps.db.tx() as tx:
            await store.load(tx, ["v:ann"])
            async with asyncio.timeout(5):
                assert await sweep.sweep(service.deps) == 1
        assert await members(client, "week") == {"v:ann"}
        assert await sweep.sweep(service.deps) == 1

    async def test_a_change_of_definitions_gets_its_turn_however_many_batches_follow_each_other(
        self, service: Any
    ) -> None:
        rounds, over, rng = [0], asyncio.Event(), random.Random(1)

        async def batches() -> None:
            while not over.is_set() and rounds[0] < 400:
                async with service.deps.db.tx() as tx:
                    await service.deps.rulebook.current(tx)
                    rounds[0] += 1
                    await asyncio.sleep(rng.uniform(0.02, 0.06))

        busy = [asyncio.ensure_future(batches()) for _ in range(8)]
        await asyncio.sleep(0.1)
        async with service.deps.db.tx() as tx:
            await definitions.alone(tx, service.deps.clock)
        over.set()
        await asyncio.gather(*busy)
        assert rounds[0] < 400, "the batches had to end first"

    async def test_a_change_of_definitions_waits_for_the_batches_that_work_by_the_old_ones(self, service: Any) -> None:
        async def change() -> None:
            async with service.deps.db.tx() as tx:
                await definitions.alone(tx, service.deps.clock)

        async with service.deps.db.tx() as tx:
            await service.deps.rulebook.current(tx)
            changing = asyncio.ensure_future(change())
            done, _ = await asyncio.wait([changing], timeout=0.5)
            assert not done
        await changing

    async def test_somebody_new_who_comes_to_two_workers_at_once_is_one_person_with_both_events(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        ingest = Ingest(service.deps, logged=False)
        for i in range(25):
            lots = [records(event(10 * i + n, who=f"visitor:new{i}")) for n in range(3)]
            await asyncio.gather(*(ingest([Slice("http", 0, 0, 1, lot)]) for lot in lots))
            found = (await client.get(f"/v1/profiles/v:new{i}")).json()
            assert found["facts"]["events"] == {"product_view": 3}

    async def test_two_workers_on_the_same_people_never_wait_in_a_circle(self, service: Any) -> None:
        rng = random.Random(3)
        people_of = [f"visitor:{i}" for i in range(12)] + [f"customer:{i}" for i in range(6)]
        numbers = iter(range(10**6))

        def batch() -> list[Any]:
            found = [event(next(numbers), who=rng.choice(people_of)) for _ in range(12)]
            for _ in range(4):
                who, device = f"{rng.randrange(6)}", f"{rng.randrange(12)}"
                found.append(
                    event(next(numbers), "login", {"visitor_id": device, "customer_id": who}, who=f"customer:{who}")
                )
            rng.shuffle(found)
            return found

        async def worker() -> None:
            ingest = Ingest(service.deps, logged=False)
            for _ in range(60):
                made = records(*batch())
                while True:
                    try:
                        await ingest([Slice("http", 0, 0, len(made), made)])
                        break
                    except store.Conflict:
                        continue

        await asyncio.gather(*(worker() for _ in range(4)))
        async with service.deps.db.tx() as tx:
            stats = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            assert await tx.fetchval(stats) == 0
            assert await tx.fetchval("SELECT count(DISTINCT identity) = count(*) FROM identity")


class TestNow:
    @pytest.mark.parametrize("how", ["live", "backfill", "sweep"])
    async def test_who_waited_for_a_row_works_at_no_instant_before_what_was_done_to_it(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, how: str
    ) -> None:
        """Somebody works on ann for a moment while the other one enters; both are then in the batch that waited for ann."""
        await make(client, service, "week", WEEK)
        due = [event(n, at=START - 7 * DAY + 500, who=f"visitor:{who}") for n, who in enumerate(("ann", "zed"))]
        await log.give(*due, event(2, "page_view"), event(3, "page_view", who="visitor:zed"))
        body = {"key": "other", "name": "other", "status": "active", "condition": VIEWED}
        clock.advance(400)
        if how == "backfill":
            assert (await client.post("/v1/segments", json=body)).status_code == 201
        if how == "sweep":
            clock.advance(100)
        async with service.deps.db.tx() as tx:
            await tx.fetch("SELECT 1 FROM profile WHERE profile = 'v:ann' FOR UPDATE")
            more = [
                event(n, "page_view", at=clock.now_ms(), who=f"visitor:{who}") for n, who in ((10, "ann"), (11, "zed"))
            ]
            waiting = asyncio.create_task(
                client.post("/v1/events", json={"events": more}) if how == "live"
                else backfill.step(service.deps) if how == "backfill" else sweep.sweep(service.deps)
            )  # fmt: skip
            await asyncio.sleep(0.3)
            clock.advance(150)
            viewed = {"events": [event(20, at=clock.now_ms(), who="visitor:zed")]}
            assert (await client.post("/v1/events", json=viewed)).status_code == 202
        await waiting
        while await backfill.step(service.deps):
            pass
        clock.advance(1000)
        while await sweep.sweep(service.deps):
            pass
        assert await members(client, "week") == {"v:zed"}
        assert (await shown(service, "v:zed")).covered_until == START + (650 if how == "sweep" else 550) + 7 * DAY

    @pytest.mark.parametrize("how", ["live", "backfill"])
    async def test_who_left_meanwhile_is_not_let_in_again_at_an_instant_before(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, how: str
    ) -> None:
        await make(client, service, "week", WEEK)
        await log.give(event(1, at=START - 7 * DAY + 500, who="visitor:zed"), event(2, "page_view"))
        clock.advance(400)
        body = {"key": "other", "name": "other", "status": "active", "condition": VIEWED}
        if how == "backfill":
            assert (await client.post("/v1/segments", json=body)).status_code == 201
        async with service.deps.db.tx() as tx:
            await tx.fetch("SELECT 1 FROM profile WHERE profile = 'v:ann' FOR UPDATE")
            more = [
                event(n, "page_view", at=clock.now_ms(), who=f"visitor:{who}") for n, who in ((10, "ann"), (11, "zed"))
            ]
            waiting = asyncio.create_task(
                client.post("/v1/events", json={"events": more}) if how == "live" else backfill.step(service.deps)
            )  # fmt: skip
            await asyncio.sleep(0.3)
            clock.advance(150)
            assert await sweep.sweep(service.deps) == 1
        await waiting
        why = (await client.get("/v1/segments/week/explain", params={"profile": "v:zed"})).json()
        assert [(t["entered"], t["at"]) for t in why["transitions"]] == [(False, START + 500), (True, START)]

    async def test_what_a_clock_ahead_of_ours_took_in_is_done(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await make(client, service, "week", WEEK)
        clock.advance(200)
        await log.give(event(1, at=START + 200))
        clock.set(START + 100)
        await log.give(event(2, "page_view", at=START + 100))
        assert await members(client, "week") == {"v:ann"}

    async def test_who_falls_due_while_a_swap_waits_does_not_enter_after_having_left(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await log.give(event(1))
        body = {"key": "week", "name": "week", "status": "active", "condition": WEEK}
        assert (await client.post("/v1/segments", json=body)).status_code == 201
        clock.set(START + 7 * DAY - 1)
        swap = backfill.swap

        async def late(*args: Any) -> None:
            clock.advance(1000)
            await swap(*args)

        monkeypatch.setattr(backfill, "swap", late)
        while await backfill.step(service.deps):
            pass
        assert await members(client, "week") == set()
        why = (await client.get("/v1/segments/week/explain", params={"profile": "v:ann"})).json()
        assert why["transitions"] == []
