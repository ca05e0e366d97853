"""A gateway that is at another Redis than everybody else, as one that stayed behind at a failover: it shows nothing that may be
killed, and says so. Real servers."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from devstack.servers import Valkey
from devstack.stack import Stack
from devstack.testing import until

from tests.e2e.shop import Services, Shop, behind_edge

pytestmark = [pytest.mark.servers, pytest.mark.slow]


class Way(socketserver.ThreadingTCPServer):
    """The way to a Redis, which may lead to another one from now on."""

    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.target = target

    def lead(self, target: int) -> None:
        """What is connected is cut."""
        self.target = target


class Passing(socketserver.BaseRequestHandler):
    """One connection."""

    server: Way

    def handle(self) -> None:
        """Pass on what comes, until the way leads elsewhere."""
        target = self.server.target
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target)) as there:
            ends = {self.request: there, there: self.request}
            while self.server.target == target:
                for end in select.select(list(ends), [], [], 0.05)[0]:
                    if not (data := end.recv(65536)):
                        return
                    ends[end].sendall(data)


@pytest.fixture
def way(valkey: Valkey) -> Iterator[Way]:
    with Way(valkey.port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def shown(shop: Shop) -> tuple[str, list[str]]:
    """By the gateway itself, and what is degraded: an edge is purged by whoever kills."""
    said = httpx.get(f"{shop.stack.url}/v1/decisions?slots=top", headers=shop.key).json()
    return said["slots"]["top"]["blocks"][0]["key"], said.get("degraded", [])


def is_ready(shop: Shop) -> bool:
    """As Kubernetes asks."""
    return httpx.get(f"{shop.stack.url}/readyz?exclude=edge&exclude=watch&exclude=redis").status_code == 200


def test_what_may_be_killed_is_shown_only_where_kills_come(
    services: Services, state: Path, way: Way, valkey: Valkey, redis_url: str
) -> None:
    (home := state / "apart").mkdir()
    old = Valkey(home)
    old.start()

    def at(name: str, *, extra: dict[str, Any], **more: Any) -> AbstractContextManager[Stack]:
        others = {service: {"REDIS_URL": redis_url} for service in ("segment_svc", "content_svc", "promo_svc")}
        return services(name, extra={**others, **extra}, **more)

    try:
        with behind_edge(at, home, REDIS_URL=f"redis://127.0.0.1:{way.server_address[1]}/0") as shop:
            shop.slot("top")
            shop.block("offer", "top")
            cart = {"currency": "EUR", "lines": [{"id": "a", "sku": "a", "price": 100, "quantity": 1}]}
            for target in (old.port, 1):  # an old primary, and none at all
                until(lambda: shown(shop) == ("offer", []) and is_ready(shop))
                way.lead(target)
                until(lambda: shown(shop)[0] == "top:default")
                assert {"content", "promotions"} <= set(shown(shop)[1])
                until(lambda: not is_ready(shop))
                priced = httpx.post(f"{shop.stack.url}/v1/cart", json=cart, headers=shop.key).json()
                assert "promotions" in priced["degraded"]
                way.lead(valkey.port)
    finally:
        old.stop()
