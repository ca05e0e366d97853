"""What is handed on to a service, and what is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from chassis.auth import Actor, ServiceTokens
from chassis.problems import Problem
from fastapi import Request
from gateway.adapters.places import Places
from gateway.adapters.upstreams import SEGMENT, Upstreams
from gateway.flows.forward import forward

NOBODY = Actor("nobody", "viewer")


async def passed_on(path: str) -> int:
    """The status of a path at a service that has everything, or why it does not get there."""
    merchants = Upstreams({SEGMENT: "http://segments"}, ServiceTokens("s" * 32, "gateway"))
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={}))
    merchants._clients[SEGMENT] = httpx.AsyncClient(base_url="http://segments", transport=transport)
    deps: Any = SimpleNamespace(merchants=merchants, places=Places())
    scope = {"type": "http", "method": "GET", "headers": [], "path": path, "query_string": b""}

    async def nothing() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    try:
        return (await forward(deps, Request(scope, nothing), SEGMENT, path, actor=NOBODY)).status_code
    except Problem as problem:
        return problem.status
    finally:
        await merchants.aclose()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/segments", 200), ("/v1/profiles/c:" + "a" * 30_000, 200), ("/v1/profiles/c:" + '"' * 30_000, 404),
        ("/v1/profiles/c:\x7f", 404),
    ],
)  # fmt: skip
async def test_what_cannot_be_a_path_of_theirs_is_nowhere(path: str, status: int) -> None:
    assert await passed_on(path) == status
