"""Evaluating many people for whom that takes long: a moment at a time, and nobody is left out or counted twice."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis import db
from chassis.clock import ManualClock
from segment_svc import definitions
from segment_svc.flows import apply_events, backfill, ingest, set_back, settle_many, sweep

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import VIEWED, Log, event, make, members

pytestmark = pytest.mark.servers
PEOPLE, EACH_S, MOST = 40, 0.01, 5
LIGHT = 30  # so many, in key order, cost nothing
WEEK = {"events": {**VIEWED["events"], "window": {"last": "P7D"}}}


@pytest.fixture
def log(service: Any) -> Log:
    return Log(service)


class Slow:
    """What a person costs, from `begin` on; how often somebody for whom it takes long was evaluated, and whose turn of the loop
    it was then. No more than MOST of them can be begun before it was too long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self.turn, self.turns = monkeypatch, 0, list[int]()

    def begin(self, *, light: int = 0) -> None:
        evaluate = apply_events._evaluate

        def slowly(row: Any, *args: Any) -> Any:
            if row.key >= f"v:v{light:02}" or row.key < "v:v":
                time.sleep(EACH_S)
                self.turns.append(self.turn)
            return evaluate(row, *args)

        self._patch.setattr(apply_events, "_evaluate", slowly)
        for where in (settle_many, apply_events, ingest):
            self._patch.setattr(where, "LONG_S", MOST * EACH_S)

    async def comes_in_parts(self, step: Callable[[], Awaitable[Any]], count: int) -> None:
        """Take steps until there are none: so many people were evaluated for whom it takes long, a few in each."""
        parts = list[int]()
        while await step():
            parts.append(len(self.turns) - sum(parts))
        assert sum(parts) == count
        assert max(parts) <= MOST


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(monkeypatch)


def views(first: int = 0) -> list[Any]:
    return [event(first + n, who=f"visitor:v{n:02}") for n in range(PEOPLE)]


def everybody() -> set[str]:
    return {f"v:v{n:02}" for n in range(PEOPLE)}


@pytest.mark.parametrize("light", [0, LIGHT])
async def test_a_backfill_takes_as_many_as_it_can_do_in_a_moment(
    client: httpx.AsyncClient, service: Any, log: Log, slow: Slow, light: int
) -> None:
    await log.give(*views())
    body = {"key": "viewers", "name": "x", "status": "active", "condition": VIEWED}
    assert (await client.post("/v1/segments", json=body)).status_code == 201
    slow.begin(light=light)
    await slow.comes_in_parts(lambda: backfill.step(service.deps), PEOPLE - light)
    assert await members(client, "viewers") == everybody()
    found = (await client.get("/v1/backfills")).json()["backfills"]
    assert [(job["done"], job["total"]) for job in found if job["status"] == "done"] == [(PEOPLE, PEOPLE)]


@pytest.mark.parametrize("light", [0, LIGHT])
async def test_so_does_a_sweep(
    client: httpx.AsyncClient, service: Any, log: Log, slow: Slow, clock: ManualClock, light: int
) -> None:
    await make(client, service, "week", WEEK)
    await log.give(*views())
    assert await members(client, "week") == everybody()
    clock.advance(8 * 86_400_000)
    slow.begin(light=light)
    await slow.comes_in_parts(lambda: sweep.sweep(service.deps), PEOPLE - light)
    assert await members(client, "week") == set()


async def test_what_a_sweep_left_is_swept_at_once(
    client: httpx.AsyncClient, service: Any, log: Log, slow: Slow, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(client, service, "week", WEEK)
    await log.give(*views())
    clock.advance(8 * 86_400_000)
    slow.begin()
    monkeypatch.setattr(sweep, "IDLE_S", 600.0)
    stop = asyncio.Event()
    sweeping = asyncio.create_task(sweep.run(service.deps, stop))
    async with asyncio.timeout(60):
        while await members(client, "week"):
            await asyncio.sleep(0.05)
    stop.set()
    await sweeping


async def test_so_does_who_looks_first_whether_somebody_can_be_evaluated(
    client: httpx.AsyncClient, service: Any, log: Log, slow: Slow, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(client, service, "week", WEEK)
    await log.give(*views())
    clock.advance(8 * 86_400_000)
    slow.begin()
    sound, looked = settle_many._sound, list[str]()

    async def counted(tx: Any, row: Any, *args: Any, **more: Any) -> bool:
        looked.append(row.key)
        return await sound(tx, row, *args, **more) and row.key != "v:v00"

    monkeypatch.setattr(settle_many, "_sound", counted)
    rules = await service.deps.rulebook.latest(service.deps.db)
    lots, due = [], PEOPLE
    while due:
        async with service.deps.db.tx() as tx:
            due = await sweep.settle_due(tx, rules, clock, by=clock.now_ms(), wary=True)
        lots.append(len(looked) - sum(lots))
    assert sorted(looked) == sorted(everybody())
    assert max(lots) <= MOST + 1, "who cannot be costs nothing here"
    assert await members(client, "week") == {"v:v00"}


async def test_so_does_who_settles_anew_after_a_clock_was_set_back(
    client: httpx.AsyncClient, service: Any, log: Log, slow: Slow, clock: ManualClock
) -> None:
    await make(client, service, "week", WEEK)
    await log.give(*views())
    clock.advance(8 * 86_400_000)
    while await sweep.sweep(service.deps):
        pass
    await set_back.look(service.deps)
    clock.advance(-8 * 86_400_000)
    slow.begin(light=LIGHT)
    after, pages, settled = "", [], 0
    while (page := await set_back._page(service.deps, after, False)) is not None:
        pages.append(len(slow.turns) - sum(pages))
        after, settled = page[0], settled + page[1]
    assert (sum(pages), settled) == (PEOPLE - LIGHT, PEOPLE)
    assert max(pages) <= MOST
    assert await members(client, "week") == everybody()


async def test_a_batch_that_takes_too_long_is_applied_in_parts_and_the_next_ones_are_smaller(
    client: httpx.AsyncClient, service: Any, log: Log, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(client, service, "viewers")
    slow.begin()
    apply, lots = ingest.apply_events, list[int]()

    async def counted(deps: Any, incoming: Any, *args: Any, **more: Any) -> Any:
        receipt = await apply(deps, incoming, *args, **more)
        lots.append(len(incoming))
        return receipt

    monkeypatch.setattr(ingest, "apply_events", counted)
    receipt = await log.give(*views())
    assert (receipt.outcomes, receipt.dead) == ({"applied": PEOPLE}, [])
    assert sum(lots) == PEOPLE
    assert max(lots) < PEOPLE / 2
    assert await members(client, "viewers") == everybody()
    before = len(slow.turns)
    await log.give(*views(first=100))
    assert len(slow.turns) - before < 2 * PEOPLE, "little is begun in vain"
    assert (await log.place(), await log.reasons()) == (2 * PEOPLE, [])


async def test_after_a_batch_that_took_nearly_too_long_the_next_ones_are_smaller(
    client: httpx.AsyncClient, service: Any, log: Log, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(client, service, "viewers")
    slow.begin()
    monkeypatch.setattr(apply_events, "LONG_S", 60.0)  # nearly
    apply, lots = ingest.apply_events, list[int]()

    async def counted(deps: Any, incoming: Any, *args: Any, **more: Any) -> Any:
        lots.append(len(incoming))
        return await apply(deps, incoming, *args, **more)

    monkeypatch.setattr(ingest, "apply_events", counted)
    await log.give(*views())
    await log.give(*views(first=100))
    assert lots[0] == PEOPLE
    assert max(lots[1:]) < PEOPLE
    assert sum(lots[1:]) == PEOPLE
    assert (await log.place(), await log.reasons()) == (2 * PEOPLE, [])


async def test_the_loop_has_its_turn_between_people(
    client: httpx.AsyncClient, service: Any, log: Log, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(client, service, "viewers")
    slow.begin()
    monkeypatch.setattr(apply_events, "LONG_S", 60.0)

    async def others() -> None:
        while True:
            slow.turn += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await log.give(*views())
    beside.cancel()
    assert len(slow.turns) == PEOPLE
    assert len(set(slow.turns)) == PEOPLE


async def test_one_person_may_take_as_long_as_it_takes(
    client: httpx.AsyncClient, service: Any, log: Log, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(client, service, "viewers")
    slow.begin()
    for where in (settle_many, apply_events):
        monkeypatch.setattr(where, "LONG_S", 0.0)
    receipt = await log.give(event(1), event(2, who="visitor:bob"))
    assert (receipt.outcomes, receipt.dead) == ({"applied": 2}, [])
    await make(client, service, "again")
    assert await members(client, "again") == {"v:ann", "v:bob"}


async def test_there_may_have_been_any_number_of_segments(client: httpx.AsyncClient, service: Any, log: Log) -> None:
    async with service.deps.db.tx() as tx:
        await tx.execute("ALTER TABLE segment ALTER COLUMN id RESTART WITH 32768")
    await log.give(*views()[:2])
    for key in ("one", "other"):
        await make(client, service, key)
        assert await members(client, key) == {"v:v00", "v:v01"}
    await log.give(event(50, who="visitor:new"))
    assert await members(client, "other") == {"v:v00", "v:v01", "v:new"}


async def test_what_is_compiled_for_long_is_not_begun_again_and_again(
    client: httpx.AsyncClient, service: Any, log: Log, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(client, service, "viewers")
    slow.begin()
    monkeypatch.setattr(db, "STAY_S", 0.01)
    monkeypatch.setattr(apply_events, "LONG_S", 0.05)
    compiling, compiled = definitions.compile_rules, list[int]()

    def slowly(release: Any, *args: Any) -> Any:
        time.sleep(0.3)
        compiled.append(release.version)
        return compiling(release, *args)

    monkeypatch.setattr(definitions, "compile_rules", slowly)
    body = {"key": "new", "name": "x", "status": "active", "condition": VIEWED}
    assert (await client.post("/v1/segments", json=body)).status_code == 201
    await log.give(*views()[:2])
    assert len(compiled) == 1
