"""The demo shop for the tests here: its services, an edge in front, and the example shop's server, all real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from devstack import varnish as varnish_server
from devstack.__main__ import Run
from devstack.process import free_port
from devstack.shop.seed import campaigns, people, publish, settled
from devstack.stack import Secrets, Stack
from devstack.testing import need
from devstack.varnish import Varnish


@dataclass(frozen=True, slots=True)
class Demo:
    """The services, the edge, and where the shop is."""

    stack: Stack
    edge: Varnish
    shop: str


@pytest.fixture(scope="package")
def demo(services: Callable[..., AbstractContextManager[Stack]], state: Path) -> Iterator[Demo]:
    """As make run has it, without the orders of strangers."""
    need(varnish_server.available())
    with ExitStack() as ending:
        run = Run(ending, state / "demo")
        run.state.mkdir()
        edge: Varnish = run.started(Varnish(run.state, Secrets.of(run.state).edge_keys()))
        # A busy machine must not turn answers into degraded ones here.
        patient = {"gateway": {"BUDGET_MS": "5000"}}
        stack = ending.enter_context(services("demo", edges=(edge.url,), extra=patient))
        campaigns(stack)
        publish(stack, people())
        assert settled(stack)
        edge.use(stack.address)
        port = free_port()
        run.shop(stack, port)
        yield Demo(stack, edge, f"http://127.0.0.1:{port}")
