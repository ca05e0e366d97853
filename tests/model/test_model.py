"""Random publishes, people, forgeries and faults, through real edges and two gateways: nobody sees what is not theirs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from devstack import varnish as varnish_server
from devstack.process import Child, free_port
from devstack.stack import Secrets, Stack
from devstack.testing import need
from devstack.varnish import Varnish
from world import World

pytestmark = [pytest.mark.servers, pytest.mark.slow]
SEED, ROUNDS = int(os.environ.get("SEED", "1")), int(os.environ.get("ROUNDS", "1500"))
UNLIMITED = {f"{who}_PER_MINUTE": "1000000000" for who in ("PERSON", "BLOCK", "KEY")}
PATIENT = {"gateway": {**UNLIMITED, "BUDGET_MS": "2000"}}  # a busy machine is no fault


@pytest.fixture(scope="module")
def doors(
    services: Callable[..., AbstractContextManager[Stack]], state: Path
) -> Iterator[tuple[Stack, dict[str, str]]]:
    """Two edges, each before a gateway of its own."""
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
        second = Child("gateway", [sys.executable, "-m", "gateway"], stack.state / "second.log", env=env)
        second.start()
        second.wait_ready(port, seconds=60)
        edges[0].use(stack.address)
        edges[1].use(f"127.0.0.1:{port}")
        yield (
            stack,
            {
                "edge0": edges[0].url,
                "edge1": edges[1].url,
                "gateway0": stack.url,
                "gateway1": f"http://127.0.0.1:{port}",
            },
        )
        second.stop()
    for edge in edges:
        edge.stop()


async def test_nobody_sees_what_is_not_theirs(doors: tuple[Stack, dict[str, str]]) -> None:
    stack, urls = doors
    async with World(stack, urls, SEED).opened() as world:
        await world.open()
        await world.live(ROUNDS)
        print(dict(world.seen), f"SEED={SEED}")
        assert not world.wrong, f"SEED={SEED}: {len(world.wrong)} of {world.seen['asked']}\n" + "\n".join(
            world.wrong[:10]
        )
        assert world.seen["asked"] > ROUNDS * 0.9
        assert world.seen["edge; hit"] > ROUNDS * 0.05, "without hits nothing was tried"
