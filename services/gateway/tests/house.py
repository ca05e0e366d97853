"""One gateway with both of its lanes, without servers: what is behind it is made up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import uvicorn
from chassis.cache import versioned
from chassis.clock import ManualClock
from chassis.health import Health
from chassis.http import Limits, service_app
from chassis.pipe import PipeUnavailable
from contracts import audience
from fastapi import Request
from gateway.domain.identity import visitor_cookie
from gateway.domain.kept import Kept
from gateway.flows.decide import Decider
from gateway.flows.knowledge import Knowledge
from gateway.flows.people import Person
from gateway.lanes.asgi import Door, Lane
from gateway.lanes.connection import Connection
from gateway.lanes.connections import Connections
from gateway.lanes.direct import Direct
from gateway.lanes.request import Reader
from rigged import KEYS, RING, RINGS, Unlimited, decisions, release, slot

START = 1_800_000_000_000
DATE = re.compile(rb"date: [^\r]*\r\n")
CLOSE = b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
LONG = "x" * 200_000


class People:
    """Stands for the pipe: documents by key, which come a moment later, or not at all."""

    def __init__(self) -> None:
        self.documents: dict[bytes, bytes] = {}
        self.remembered_now: dict[bytes, Person] = {}
        self.away, self.silent, self.reads = False, False, 0

    def remembered(self, key: bytes) -> Person | None:
        return self.remembered_now.get(key)

    def ask(self, key: bytes, tell: Callable[[Person | None], None]) -> None:
        if self.away:
            raise PipeUnavailable
        self.reads += 1
        asyncio.get_running_loop().call_later(0.003, self._deliver, key, tell)

    async def get(self, key: bytes) -> Person:
        answer: asyncio.Future[Person | None] = asyncio.get_running_loop().create_future()
        self.ask(key, answer.set_result)
        found = await answer
        if found is None:
            raise PipeUnavailable
        return found

    def _deliver(self, key: bytes, tell: Callable[[Person | None], None]) -> None:
        if self.away or self.silent:
            tell(None)
            return
        found = self.remembered_now[key] = Person(self.documents.get(key), b"0")
        tell(found)


class Service:
    """Says the same of everything, a moment later."""

    async def ask(self, question: Mapping[str, Any]) -> Any:
        await asyncio.sleep(0.002)
        block = {"key": "b", "content": LONG if "long" in question.get("slots", ()) else "hi"}
        slots = {s: {"fallback": False, "blocks": [block]} for s in question.get("slots", ())}
        return {"version": 1, "slots": slots, "messages": [], "tags": ["t"], "next_change_at": None}


async def echo(request: Request) -> int:
    """How many bytes came."""
    return len(await request.body())


class House:
    """One gateway with two lanes: `ports` by name."""

    def __init__(self) -> None:
        self.people, clock = People(), ManualClock(START)
        pipe: Any = self.people
        service: Any = Service()
        decider = Decider(Knowledge(), pipe, service, service, clock, ZoneInfo("UTC"), 5.0, 60, Kept(1 << 20))
        decider.knowledge.swap(*release(1, top=slot(), long=slot()))
        self.decisions, self.door = decisions(decider, KEYS), Door(["localhost"])
        app = service_app("t", pings={}, health=Health())
        app.add_api_route("/echo", echo, methods=["POST"])
        none: Any = None
        limiter: Any = Unlimited()
        self.lane: Any = Lane(
            Limits(app, service="t"), self.door, self.decisions, KEYS, Reader(KEYS, RINGS, none), limiter
        )
        self.connections, self.others = (
            Connections(1000, Health(), RINGS.front, files=4096) for _ in range(2)
        )  # of each lane
        self.servers: dict[str, uvicorn.Server] = {}
        self.ports: dict[str, int] = {}
        self.cookies = []
        for n in range(4):
            name, cookie = visitor_cookie(RING, bytes([n]) * 16)
            document = audience.Audience(audience.FORMAT, 0, b"", (), "", 0, None, False)
            self.people.documents[b"aud:v:" + name.encode()] = versioned(1, audience.encode(document))
            self.cookies.append(cookie.encode())

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[House]:
        usual: Any = partial(Connection, self.others)
        fast: Any = partial(Direct, self.connections, self.door, self.decisions)
        running = []
        for name, http in (("usual", usual), ("direct", fast)):
            config = uvicorn.Config(
                self.lane, port=0, http=http, lifespan="off", access_log=False, server_header=False, log_level="critical",
                timeout_graceful_shutdown=5,
            )  # fmt: skip
            server = self.servers[name] = uvicorn.Server(config)
            running.append(asyncio.ensure_future(server._serve()))
            while not server.started:
                await asyncio.sleep(0.01)
            self.ports[name] = server.servers[0].sockets[0].getsockname()[1]
        running.append(asyncio.ensure_future(self.connections.run(stop := asyncio.Event())))
        yield self
        stop.set()
        for server in self.servers.values():
            server.should_exit = True
        await asyncio.gather(*running)

    async def let_go(self, seconds: float) -> None:
        """Wait until somebody is connected, and then until nobody is."""
        async with asyncio.timeout(seconds):
            while not self.connections.open:
                await asyncio.sleep(0.01)
            while self.connections.open:
                await asyncio.sleep(0.05)


async def begun(port: int, sent: bytes) -> asyncio.StreamWriter:
    """A connection on which this was sent, and nothing is read."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    return writer


async def exchange(port: int, parts: Sequence[bytes]) -> bytes:
    """All that is answered to what is sent in these parts; the last of it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        found = await reader.read()
    writer.close()
    return DATE.sub(b"", found)


def get(target: bytes = b"/v1/decisions?slots=top", *more: bytes, method: bytes = b"GET") -> bytes:
    head = [method + b" " + target + b" HTTP/1.1", b"host: localhost", b"x-api-key: k", *more]
    return b"\r\n".join(head) + b"\r\n\r\n"
