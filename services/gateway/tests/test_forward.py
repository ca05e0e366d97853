"""What takes long takes few connections, and as much memory as a piece of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from chassis.auth import ServiceTokens
from chassis.health import Health
from chassis.http import Limits, service_app
from gateway.adapters.keys import Keys
from gateway.adapters.places import Places
from gateway.adapters.upstreams import SEGMENT, Upstreams
from gateway.flows import forward
from gateway.routes import merchants

CSV = "/admin/v1/segments/a/members.csv"
LONG = [("POST", "/segments/preview"), ("GET", "/segments/a/members"), ("GET", "/segments/a/members.csv"),
        ("GET", "/segments/a%20b/members%2ecsv"), ("GET", "/backfills"), ("GET", "/segments"), ("GET", "/segments/a/versions"),
        ("GET", "/segments/a/%76ersions")]  # fmt: skip


class Pieces(httpx.AsyncByteStream):
    """A list that goes on for ever, and breaks off at piece `breaks`."""

    def __init__(self, breaks: int = -1) -> None:
        self.breaks, self.given, self.closed = breaks, 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            if self.given == self.breaks:
                raise httpx.ReadError("away")
            self.given += 1
            yield b"x" * 1000
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        self.closed = True


class Gateway:
    """Its admin routes, before a segment-svc that waits for `go` when it is asked for what takes long."""

    def __init__(self) -> None:
        self.go, self.begun, self.pieces, self.status = asyncio.Event(), 0, Pieces(), 200
        self.large = False
        names = [f"boss-{n}" for n in range(4)]
        keys = [
            {"id": k, "sha256": hashlib.sha256(k.encode()).hexdigest(), "kind": "admin", "role": "marketer"}
            for k in names
        ]
        upstreams = Upstreams({SEGMENT: "http://segment"}, ServiceTokens("s" * 32, "gateway"))
        transport = httpx.MockTransport(self._answer)
        upstreams._clients[SEGMENT] = httpx.AsyncClient(transport=transport, base_url="http://segment")
        self.places, app = Places(), service_app("t", pings={}, health=Health())
        app.include_router(merchants.router)
        app.state.deps = SimpleNamespace(keys=Keys(json.dumps(keys)), merchants=upstreams, places=self.places)
        self.app = Limits(app, service="t")
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://localhost")

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/segments/a":
            return httpx.Response(200, json={"key": "a"})
        self.begun += 1
        await self.go.wait()
        if self.status != 200:
            return httpx.Response(self.status, json={"type": "x"}, headers={"content-type": "application/problem+json"})
        if not request.url.path.endswith(".csv"):
            if self.large:
                return httpx.Response(200, stream=self.pieces, headers={"content-type": "application/json"})
            return httpx.Response(200, json={"count": 0}, headers={"etag": '"1"'})
        return httpx.Response(200, stream=self.pieces, headers={"content-type": "text/csv; charset=utf-8"})

    async def ask(self, who: int, method: str, path: str) -> httpx.Response:
        return await self.client.request(method, f"/admin/v1{path}", headers={"x-api-key": f"boss-{who}"})


@pytest.fixture
async def gateway() -> Gateway:
    return Gateway()


@pytest.mark.parametrize(("method", "path"), LONG)
async def test_what_takes_long_has_few_places_of_a_key_and_in_all_and_nobody_waits_for_one(
    gateway: Gateway, method: str, path: str
) -> None:
    gateway.status = 404  # so that every one of them ends
    began = list[asyncio.Task[httpx.Response]]()
    async with asyncio.timeout(5):
        for who in (0, 0, 0, 1, 2, 3):  # one after the other, and none of them ends
            began.append(asyncio.ensure_future(gateway.ask(who, method, path)))
            while gateway.begun + sum(task.done() for task in began) < len(began):
                await asyncio.sleep(0.01)
        busy = [task.result() for task in began if task.done()]
        assert [(a.status_code, a.json()["type"], "retry-after" in a.headers) for a in busy] == [
            (503, "urn:footfall:problem:busy", True)
        ] * 2
        assert [n for n, task in enumerate(began) if task.done()] == [2, 5], "the third of a key, the fifth in all"
        assert (await gateway.ask(0, "GET", "/segments/a")).status_code == 200, "one document takes no place"
        gateway.go.set()
        assert {a.status_code for a in await asyncio.gather(*began)} == {404, 503}
    assert gateway.places.taken.total() == 0
    assert (await gateway.ask(0, method, path)).status_code == 404


async def test_what_is_no_list_is_answered_as_it_was_said(gateway: Gateway) -> None:
    gateway.go.set()
    answer = await gateway.ask(0, "GET", "/segments/a/members")
    assert (answer.status_code, answer.json(), answer.headers["etag"]) == (200, {"count": 0}, '"1"')
    assert answer.headers["cache-control"] == "private, no-store"


class Reader:
    """Takes `most` pieces of the list and goes away."""

    def __init__(self, most: int, path: str = CSV) -> None:
        self.path, self.most, self.said, self.gone, self.asked = path, most, list[Any](), asyncio.Event(), False

    async def receive(self) -> Any:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.said.append(message)
        if len(self.said) > self.most:
            self.gone.set()
            await asyncio.sleep(0.01)

    async def read(self, gateway: Gateway) -> None:
        scope = {
            "type": "http", "method": "GET", "path": self.path, "raw_path": self.path.encode(), "query_string": b"",
            "headers": [(b"x-api-key", b"boss-0")], "asgi": {"spec_version": "2.3"}, "http_version": "1.1",
            "scheme": "http", "server": ("localhost", 80), "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        async with asyncio.timeout(5):
            await gateway.app(scope, self.receive, self.send)


async def test_a_list_is_passed_on_as_it_comes_and_who_goes_away_gives_all_back(gateway: Gateway) -> None:
    gateway.go.set()
    reader = Reader(5)
    await reader.read(gateway)
    head = dict(reader.said[0]["headers"])
    assert (reader.said[0]["status"], head[b"content-type"]) == (200, b"text/csv; charset=utf-8")
    assert head[b"cache-control"] == b"private, no-store"
    assert [len(message["body"]) for message in reader.said[1:6]] == [1000] * 5
    assert gateway.pieces.given < 10, "no more than was taken"
    assert (gateway.pieces.closed, gateway.places.taken.total()) == (True, 0)


async def test_one_that_breaks_off_is_never_taken_for_the_whole(gateway: Gateway) -> None:
    gateway.go.set()
    gateway.pieces = Pieces(breaks=3)
    reader = Reader(1000)
    with pytest.raises(httpx.ReadError):
        await reader.read(gateway)
    assert all(message.get("more_body", True) for message in reader.said)
    assert (gateway.pieces.closed, gateway.places.taken.total()) == (True, 0)


@pytest.mark.parametrize("path", ["/admin/v1/segments/a/versions", "/admin/v1/profiles/c:1"])
async def test_whatever_is_large_is_never_whole_in_memory(
    gateway: Gateway, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "MOST_BYTES", 10_000)
    gateway.go.set()
    gateway.large = True
    reader = Reader(5, path)
    await reader.read(gateway)
    assert (reader.said[0]["status"], len(reader.said[1]["body"])) == (200, 11_000)
    assert [len(message["body"]) for message in reader.said[2:6]] == [1000] * 4
    assert gateway.pieces.given < 20, "no more than was taken"
    assert (gateway.pieces.closed, gateway.places.taken.total()) == (True, 0)


async def test_what_is_large_has_one_of_the_few_places_whatever_it_is(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "MOST_BYTES", 10_000)
    gateway.go.set()
    gateway.large = True
    with gateway.places.one("boss-0"), gateway.places.one("boss-0"):
        async with asyncio.timeout(5):
            assert (await gateway.ask(0, "GET", "/profiles/c:1")).status_code == 503
        assert gateway.pieces.closed
    assert gateway.places.taken.total() == 0
