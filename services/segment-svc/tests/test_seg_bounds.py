"""What one request, page or person may take, so that the rest goes on."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from functools import partialmethod
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from chassis import db
from chassis.clock import ManualClock
from segment_svc import catalog, definitions, reads
from segment_svc.domain import probes
from segment_svc.flows import apply_events, backfill, preview, settle_many, sweep

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import START, VIEWED, Log, event, make, members, shown

pytestmark = pytest.mark.servers
PICK = {"profile": "c:best", "include": True, "reason": "r"}


@pytest.fixture
def log(service: Any) -> Log:
    return Log(service)


@pytest.fixture
async def crowd(log: Log) -> None:
    """Forty people of about ten kilobytes each."""
    for n in range(40):
        views = [event(100 * n + i, data={"name": f"{i}" * 2000}, who=f"visitor:v{n:02}") for i in range(5)]
        await log.give(*views)


class TestBounds:
    async def test_a_page_of_a_backfill_is_bounded_by_bytes_and_all_of_it_is_done(
        self, client: httpx.AsyncClient, service: Any, crowd: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backfill, "MOST_BYTES", 50_000)
        load, pages = backfill.store.load, []

        async def counted(tx: Any, keys: Any, **more: Any) -> Any:
            pages.append(len(keys))
            return await load(tx, keys, **more)

        monkeypatch.setattr(backfill.store, "load", counted)
        await make(client, service, "viewers")
        assert len(await members(client, "viewers")) == 40
        assert sum(pages) == 40
        assert max(pages) < 10

    async def test_somebody_larger_than_a_page_is_a_page(
        self, client: httpx.AsyncClient, service: Any, crowd: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backfill, "MOST_BYTES", 1)
        await make(client, service, "viewers")
        assert len(await members(client, "viewers")) == 40

    @pytest.mark.parametrize("slow", ["_evaluate", "_caught_up", "a release"])
    async def test_work_that_takes_longer_than_the_server_waits_for_who_says_nothing_is_done_all_the_same(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, monkeypatch: pytest.MonkeyPatch,
        slow: str,
    ) -> None:  # fmt: skip
        await make(client, service, "now", {"events": {**VIEWED["events"], "window": {"last": "P7D"}}})
        await log.give(*(event(n, who=f"visitor:v{n:02}") for n in range(10)))
        clock.advance(8 * 86_400_000)
        monkeypatch.setattr(db, "STAY_S", 0.05)
        monkeypatch.setattr(db.Database, "tx", partialmethod(db.Database.tx, silence_s=0.5))
        where, name = (definitions, "compile_rules") if slow == "a release" else (apply_events, slow)
        work = getattr(where, name)

        def slowly(*args: Any) -> Any:
            time.sleep(1.5 if slow == "a release" else 0.1)
            return work(*args)

        monkeypatch.setattr(where, name, slowly)
        await make(client, service, "viewers")
        assert len(await members(client, "viewers")) == 10
        assert await members(client, "now") == set()

    @pytest.mark.parametrize(
        ("where", "slow"), [(apply_events, "_evaluate"), (apply_events, "_caught_up"), (settle_many, "_decided")]
    )
    async def test_one_person_who_takes_longer_than_that_is_done_while_the_loop_goes_on(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, monkeypatch: pytest.MonkeyPatch,
        where: Any, slow: str,
    ) -> None:  # fmt: skip
        await make(client, service, "now", {"events": {**VIEWED["events"], "window": {"last": "P7D"}}})
        await log.give(event(1, data={"name": "x" * 2000}))
        assert await members(client, "now") == {"v:ann"}
        clock.advance(8 * 86_400_000)
        monkeypatch.setattr(db, "STAY_S", 0.05)
        monkeypatch.setattr(db.Database, "tx", partialmethod(db.Database.tx, silence_s=0.5))
        monkeypatch.setattr(apply_events, "LARGE", 1000)
        work, turns, meanwhile = getattr(where, slow), [0], list[int]()

        def slowly(*args: Any) -> Any:
            before = turns[0]
            time.sleep(1.5)
            meanwhile.append(turns[0] - before)
            return work(*args)

        async def others() -> None:
            while True:
                turns[0] += 1
                await asyncio.sleep(0.01)

        monkeypatch.setattr(where, slow, slowly)
        rules = await service.deps.rulebook.latest(service.deps.db)
        beside = asyncio.create_task(others())
        async with service.deps.db.tx() as tx:
            assert await sweep.settle_due(tx, rules, clock, by=clock.now_ms(), wary=where is settle_many) == 1
        beside.cancel()
        assert min(meanwhile) > 1
        assert await members(client, "now") == set()

    async def test_so_is_who_is_new_and_sends_very_much_at_once(
        self, client: httpx.AsyncClient, service: Any, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await make(client, service, "viewers")
        monkeypatch.setattr(apply_events, "LARGE", 1000)
        work, threads = apply_events._evaluate, list[int]()

        def noted(*args: Any) -> Any:
            threads.append(threading.get_ident())
            return work(*args)

        monkeypatch.setattr(apply_events, "_evaluate", noted)
        await log.give(event(1, data={"name": "x" * 2000}))
        assert threads
        assert threading.get_ident() not in threads

    async def test_a_preview_looks_at_so_many_bytes_and_says_of_how_many(
        self, client: httpx.AsyncClient, crowd: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = (await client.post("/v1/segments/preview", json={"condition": VIEWED})).json()
        assert (whole["matched"], whole["sampled"], whole["exact"]) == (40, 40, True)
        monkeypatch.setattr(reads, "MOST_BYTES", 50_000)
        monkeypatch.setattr(reads, "DRAWN_AT_ONCE", 2)
        part = (await client.post("/v1/segments/preview", json={"condition": VIEWED})).json()
        assert 4 <= part["sampled"] < 10
        assert (part["matched"], part["profiles"], part["estimate"], part["exact"]) == (part["sampled"], 40, 40, False)

    async def test_a_preview_knows_who_was_picked_by_hand(
        self, client: httpx.AsyncClient, service: Any, crowd: None
    ) -> None:
        picks = [
            {"profile": f"v:{who}", "include": include, "reason": "r"}
            for who, include in (("v00", False), ("v01", True))
        ]
        await make(client, service, "picked", overrides=picks)
        referring = {"segment": {"op": "in", "keys": ["picked"]}}
        found = (await client.post("/v1/segments/preview", json={"condition": referring})).json()
        assert found["matched"] == len(await members(client, "picked")) == 39

    async def test_a_preview_is_no_segment_whatever_that_is_called(
        self, client: httpx.AsyncClient, service: Any, crowd: None
    ) -> None:
        await make(client, service, "draft")
        referring = {"segment": {"op": "in", "keys": ["draft"]}}
        found = (await client.post("/v1/segments/preview", json={"condition": referring})).json()
        assert found["matched"] == 40

    async def test_who_is_picked_in_what_is_refused_is_nobody_new(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await make(client, service, "taken")
        unknown = {"segment": {"op": "in", "keys": ["nowhere"]}}
        for key, condition, status in (("taken", VIEWED, 409), ("new", unknown, 422)):
            body = {"key": key, "name": key, "status": "active", "condition": condition, "overrides": [PICK]}
            assert (await client.post("/v1/segments", json=body)).status_code == status
        drafted = {"key": "later", "name": "later", "status": "draft", "condition": VIEWED, "overrides": [PICK]}
        assert (await client.post("/v1/segments", json=drafted)).status_code == 201
        while await backfill.step(service.deps):
            pass
        found = (await client.post("/v1/segments/preview", json={"condition": VIEWED})).json()
        assert found["profiles"] == 0

    async def test_who_is_picked_before_any_event_came_is_in_at_once_and_is_the_same_person_later(
        self, client: httpx.AsyncClient, service: Any, log: Log
    ) -> None:
        nobody = {"attribute": "nobody", "op": "eq", "value": "x"}
        picks = [{"profile": f"c:best{n}", "include": n > 0, "reason": "r"} for n in range(3)]
        await make(client, service, "best", nobody, overrides=picks)
        assert await members(client, "best") == {"c:best1", "c:best2"}
        assert (await shown(service, "c:best1")).bits != (await shown(service, "c:best0")).bits
        await log.give(event(1, who="customer:best1"))
        assert await members(client, "best") == {"c:best1", "c:best2"}
        why = (await client.get("/v1/segments/best/explain", params={"profile": "c:best2"})).json()
        assert (why["known"], why["why"]["result"]) == (True, True)

    async def test_a_few_previews_are_made_at_a_time_and_others_are_told_to_come_again(
        self, client: httpx.AsyncClient, service: Any, crowd: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preview, "WAIT_S", 0.2)
        going, matched = threading.Event(), preview._matched

        def slow(*args: Any, **more: Any) -> Any:
            assert going.wait(30)
            return matched(*args, **more)

        monkeypatch.setattr(preview, "_matched", slow)
        asked = [asyncio.create_task(client.post("/v1/segments/preview", json={"condition": VIEWED})) for _ in range(8)]
        done, waiting = await asyncio.wait(asked, timeout=5)
        assert (len(done), len(waiting)) == (6, 2)
        assert {(t.result().status_code, t.result().json()["type"]) for t in done} == {
            (503, "urn:footfall:problem:busy")
        }
        assert (await client.get("/v1/segments")).status_code == 200, "no connection is held meanwhile"
        going.set()
        assert [(await task).status_code for task in waiting] == [200, 200]

    async def test_what_cannot_be_done_now_is_worth_another_try(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def locked(*_: Any, **__: Any) -> Any:
            raise asyncpg.LockNotAvailableError("held")

        monkeypatch.setattr(catalog, "page", locked)
        answer = await client.get("/v1/segments")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["type"] == "urn:footfall:problem:busy"

    async def test_a_draft_that_takes_long_for_somebody_is_told_so_before_anybody_is_looked_at(
        self, client: httpx.AsyncClient, crowd: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probes, "DEAR_S", 0.0)
        answer = await client.post("/v1/segments/preview", json={"condition": VIEWED})
        assert answer.status_code == 422
        assert "it takes over" in answer.json()["errors"][0]["detail"]

    async def test_one_damaged_row_takes_a_segment_from_nobody_else(
        self, client: httpx.AsyncClient, service: Any, log: Log
    ) -> None:
        named = {"events": {**VIEWED["events"], "where": {"field": "name", "op": "contains", "value": "x"}}}
        await make(client, service, "plain")
        await make(client, service, "fans", named)
        for n, who in enumerate(("ann", "bob")):
            await log.give(event(n, data={"name": "xylophone"}, who=f"visitor:{who}"))
        assert await members(client, "fans") == {"v:ann", "v:bob"}
        async with service.deps.db.tx() as tx:
            state = await tx.fetchval("SELECT state FROM profile WHERE profile = 'v:ann'")
            damaged = state.replace(b"\xa9xylophone", b"\xc1xylophone")
            assert damaged != state
            await tx.execute("UPDATE profile SET state = $1, stamp = stamp # 1 WHERE profile = 'v:ann'", damaged)
        await log.give(event(10, "page_view", who="visitor:ann"), event(11, "page_view", who="visitor:bob"))
        await make(client, service, "other")
        found = (await client.get("/v1/segments")).json()["segments"]
        assert [s["quarantined"] for s in found] == [None, None, None]
        assert "v:bob" in await members(client, "fans")
        assert await members(client, "other") >= {"v:bob"}

    async def test_who_fell_due_before_a_new_version_serves_does_not_enter_it_after_having_left(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await make(client, service, "recent", {"events": {"type": "page_view"}})
        await log.give(event(1, "page_view"))
        hour = {"events": {"type": "product_view", "window": {"last": "PT1H"}}}
        await log.give(event(2))
        body = {"name": "recent", "status": "active", "condition": hour}
        answer = await client.put("/v1/segments/recent", json=body, headers={"if-match": '"1"'})
        assert answer.status_code == 200
        assert await backfill.step(service.deps)  # a page of it, while ann is still inside
        clock.advance(2 * 3_600_000)
        while await backfill.step(service.deps):
            pass
        assert await members(client, "recent") == set()
        why = await client.get("/v1/segments/recent/explain", params={"profile": "v:ann", "at": START + 3 * 3_600_000})
        assert why.json()["member_at"] is False
