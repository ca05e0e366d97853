"""A clock that is wrong: a worker whose clock is not the database's does nothing, and what was done by both is done anew."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.clock import ManualClock, SystemClock
from chassis.migrate import upgrade
from segment_svc.app import SCHEMA, adapters
from segment_svc.definitions import ClockOff
from segment_svc.flows import set_back, sweep
from segment_svc.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import START, VIEWED, Log, event, make, members, shown

pytestmark = pytest.mark.servers
DAY = 86_400_000
YEAR = {"events": {**VIEWED["events"], "window": {"last": "P365D"}}}


class Machine(SystemClock):
    """A machine whose clock is wrong by so many milliseconds."""

    off_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.off_ms


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def worker(database: str, redis_url: str, machine: Machine) -> AsyncIterator[Any]:
    """A service that goes by the clock of its machine."""
    await upgrade(database, schema=SCHEMA, package="segment_svc")
    settings = Settings(database_url=database, redis_url=redis_url, service_secret="s" * 32)
    async with adapters(settings, clock=machine) as built:
        yield built


class TestMachine:
    @pytest.mark.parametrize("off_ms", [400 * DAY, -2 * DAY, 60_000, -60_000])
    async def test_nothing_is_done_by_a_clock_that_is_not_the_databases_until_it_is_right(
        self, worker: Any, machine: Machine, off_ms: int
    ) -> None:
        log, viewed = Log(worker), event(1, at=time.time_ns() // 1_000_000)
        machine.off_ms = off_ms
        for work in (lambda: log.give(viewed), lambda: sweep.sweep(worker.deps), lambda: set_back.look(worker.deps)):
            with pytest.raises(ClockOff):
                await work()
            assert list(worker.deps.health.troubles()) == ["clock"]
        assert (await log.place(), await log.letters()) == (0, [])
        machine.off_ms = 0
        assert (await log.give(viewed)).outcomes == {"applied": 1}
        assert (await log.place(), worker.deps.health.troubles()) == (1, {})

    async def test_a_clock_that_is_right_a_moment_later_blames_no_event(
        self, worker: Any, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log, ahead = Log(worker), [60_000]
        monkeypatch.setattr(machine, "ahead_of", lambda _: ahead.pop() if ahead else 0)
        with pytest.raises(ClockOff):
            await log.give(event(1, at=time.time_ns() // 1_000_000))
        assert (await log.place(), await log.letters()) == (0, [])

    async def test_a_merchant_who_saves_by_such_a_clock_is_told_so(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ManualClock, "ahead_of", SystemClock.ahead_of)
        answer = await client.post("/v1/segments", json={"key": "x", "name": "x", "condition": VIEWED})
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:footfall:problem:clock-off")
        assert (await client.get("/v1/segments/x")).status_code == 404


class TestSetBack:
    async def test_who_was_taken_out_by_a_database_ahead_of_its_time_is_in_again(
        self, client: httpx.AsyncClient, service: Any, clock: ManualClock
    ) -> None:
        log = Log(service)
        await make(client, service, "year", YEAR)
        await log.give(event(1), event(2, "login", {"visitor_id": "eve", "customer_id": "e"}, who="customer:e"))
        assert await set_back.look(service.deps) == 0
        clock.set(START + 400 * DAY)
        assert await set_back.look(service.deps) == 0
        assert await sweep.sweep(service.deps) == 1
        assert await members(client, "year") == set()
        clock.set(START + 1000)
        assert await sweep.sweep(service.deps) == 0
        assert await set_back.look(service.deps) == 1
        assert await members(client, "year") == {"v:ann"}
        assert (await shown(service, "v:ann")).covered_until == START + 365 * DAY
        why = (await client.get("/v1/segments/year/explain?profile=v:ann")).json()
        assert [(t["entered"], t["at"] > clock.now_ms() + DAY) for t in why["transitions"]] == [
            (True, False), (False, False), (True, False)
        ]  # fmt: skip
        assert await set_back.look(service.deps) == 0, "once"
        clock.set(START + 366 * DAY)
        assert await sweep.sweep(service.deps) == 1, "and it is due when it was"
        assert await members(client, "year") == set()
