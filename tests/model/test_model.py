"""Random publishes, people, forgeries and faults, through real edges and two gateways: nobody sees what is not theirs."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import moved
import pytest
from asking import Asking
from devstack import varnish as varnish_server
from devstack.process import Child, free_port
from devstack.stack import Secrets, Stack
from devstack.testing import need
from devstack.varnish import Varnish
from faults import Faults
from moved import MOST_MS, Moves
from world import World

pytestmark = [pytest.mark.servers, pytest.mark.slow]
SEED, ROUNDS = int(os.environ.get("SEED", "1")), int(os.environ.get("ROUNDS", "3000"))
UNLIMITED = {f"{who}_PER_MINUTE": "1000000000" for who in ("PERSON", "BLOCK", "KEY", "BYTES")}
PATIENT = {"gateway": {**UNLIMITED, "BUDGET_MS": "2000"}}  # a busy machine is no fault


@pytest.fixture(scope="module")
def doors(
    services: Callable[..., AbstractContextManager[Stack]], state: Path
) -> Iterator[tuple[Stack, dict[str, str], Moves]]:
    """Two edges, each before a gateway of its own, of which one has a clock that is moved."""
    need(varnish_server.available())
    home = state / "model"
    home.mkdir()
    edges = []
    for n in range(2):
        (home / f"edge{n}").mkdir()
        edges.append(Varnish(home / f"edge{n}", Secrets.of(home).edge_keys()))
        edges[-1].start()
    with services("model", edges=tuple(edge.url for edge in edges), extra=PATIENT) as stack:
        port = free_port()
        env = {**stack.env("gateway"), "GATEWAY_PORT": str(port)}
        moves, argv = Moves(home / "moved"), [sys.executable, moved.__file__]
        second = Child("gateway", [*argv, str(moves.path)], stack.state / "second.log", env=env)
        second.start()
        second.wait_ready(port, seconds=60)
        edges[0].use(stack.address)
        edges[1].use(f"127.0.0.1:{port}")
        urls = {
            "edge0": edges[0].url,
            "edge1": edges[1].url,
            "gateway0": stack.url,
            "gateway1": f"http://127.0.0.1:{port}",
        }
        yield stack, urls, moves
        second.stop()
    for edge in edges:
        edge.stop()


async def test_nobody_sees_what_is_not_theirs(doors: tuple[Stack, dict[str, str], Moves]) -> None:
    stack, urls, moves = doors
    async with World(stack, urls, SEED).opened() as world:
        await world.open()
        asking = Asking(world)
        await live(world, asking, ROUNDS, moves)
        asking.judge()
        seen, wrong = asking.seen, asking.wrong
        print(dict(seen), f"SEED={SEED}")
        assert not wrong, f"SEED={SEED}: {len(wrong)} of {seen['asked']}\n" + "\n".join(wrong[:10])
        assert seen["asked"] > ROUNDS * 0.9
        assert seen["edge; hit"] > ROUNDS * 0.02, "without hits nothing was tried"


async def live(world: World, asking: Asking, rounds: int, moves: Moves) -> None:
    """So many requests, of several people at once, while things change."""
    left, stop, faults = itertools.count(1), asyncio.Event(), Faults(world)
    merchants = [*[world.publish] * 6, world.remove, world.kill, world.lift, world.lift]
    people = [world.become, world.become, world.redefine, world.refresh, world.log_in, world.log_out]
    wrongs = [faults.stall, faults.silence, faults.crash]

    async def askers() -> None:
        while next(left) <= rounds:
            await asking.ask()
            await asyncio.sleep(world.chance.expovariate(30))  # so that much changes between two requests

    async def changing(deeds: list[Callable[[], Awaitable[None]]]) -> None:
        while not stop.is_set():
            deed = world.chance.choice(deeds)
            await asking.did(deed)
            await asyncio.sleep(world.chance.choice([0.0, 0.3, 2.0, 4.0]))

    async def failing() -> None:
        while not stop.is_set():
            await faults.rest()  # what is never whole shares nothing, and has nothing to leak
            await asking.did(world.chance.choice(wrongs))

    async def moving() -> None:
        while not stop.is_set():
            moves.by(world.chance.randint(-MOST_MS, MOST_MS))
            asking.seen["clock"] += 1
            await asyncio.sleep(world.chance.uniform(0.5, 5))
        moves.by(0)

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(changing(deeds)) for deeds in (merchants, people, [world.refresh])]
        running += [group.create_task(failing()), group.create_task(moving())]
        await asyncio.gather(*(askers() for _ in range(8)))
        stop.set()
        await asyncio.gather(*running)
