"""How a process ends: as a signal has it, when one of its loops ended, and whatever holds that up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from typing import Any
from unittest.mock import AsyncMock

import pytest
from chassis import service
from chassis.db import Database
from chassis.health import Health
from chassis.http import service_app
from chassis.outbox import Relay
from chassis.service import FOLLOW_S, Loop, Service, repeat, serve
from chassis.snapshot import Snapshot
from devstack.process import free_port

# Deaf: to the event it is given, to a cancel, and in the end to everything.
DEAF = """
import asyncio, contextlib, sys, time
from chassis import service
from chassis.health import Health
from chassis.http import service_app
from devstack.process import free_port

service.DRAIN_S, service.END_S = 0.1, 0.5

class Settings:
    metrics_port = 0

async def deaf(_):
    print("runs", flush=True)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if sys.argv[1] == "blocks":
            time.sleep(60)

async def fails(_):
    if sys.argv[1] == "fails":
        raise ValueError("12.5")
    await asyncio.Event().wait()

@contextlib.asynccontextmanager
async def build(_):
    app = service_app("t", pings={}, health=Health())
    loops = [service.Loop("a", deaf), service.Loop("b", fails)]
    yield service.Service("t", app, "127.0.0.1", free_port(), loops)

service.run(build, Settings())
"""


@pytest.mark.parametrize("how", ["told", "blocks", "fails"])
def test_a_process_that_is_to_end_ends_whatever_holds_it_up_and_says_so(how: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", DEAF, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
        if how != "fails":
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=50)
    finally:
        process.kill()
    assert process.returncode == 1
    assert b"end_abandoned" in said


async def test_a_loop_that_fails_has_the_others_drain_though_a_library_takes_a_cancel_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, ended = asyncio.Event(), list[str]()

    async def swallows() -> bool:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)
        return False

    async def follows(stop: asyncio.Event) -> None:
        await repeat(swallows, stop, name="t", idle_s=0.01, health=Health())
        ended.append("follows")

    async def deaf(_: asyncio.Event) -> None:
        await repeat(swallows, asyncio.Event(), name="t", idle_s=0.01, health=Health())

    async def fails(_: asyncio.Event) -> None:
        await began.wait()
        raise ValueError("12.5")

    monkeypatch.setattr(service, "DRAIN_S", 0.2)
    app = service_app("t", pings={}, health=Health())
    loops = [Loop("a", follows), Loop("b", deaf), Loop("c", fails)]
    made = Service("t", app, "127.0.0.1", free_port(), loops)
    async with asyncio.timeout(30):
        with pytest.raises(ExceptionGroup) as raised:
            await serve(made, asyncio.Event())
    assert [str(error) for error in raised.value.exceptions] == ["12.5"]
    assert ended == ["follows"]


@pytest.mark.parametrize("who", ["snapshot", "outbox facts"])
async def test_who_follows_a_head_looks_again_soon_however_long_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    waited, stop = list[float](), asyncio.Event()

    def pause(failures: int, *, base_s: float, most_s: float) -> float:
        waited.append(min(most_s, base_s * 2.0**failures))
        if failures > 20:
            stop.set()
        return 0.0

    monkeypatch.setattr(service, "pause_s", pause)
    db = await Database.open("postgresql://127.0.0.1:1/nowhere", schema="public")
    build: Any = None
    follower = (
        Snapshot(db, build, Health(), ahead=AsyncMock(return_value=True))
        if who == "snapshot"
        else Relay(db, {"facts": build}, Health())
    )
    async with asyncio.timeout(60):
        await follower.run(stop)
    assert max(waited) == FOLLOW_S
    await db.close()
