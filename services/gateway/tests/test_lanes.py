"""Both lanes say the same, byte for byte, however a request comes: whole, split, one behind the other, slowly read."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import uvicorn
from chassis.cache import versioned
from chassis.clock import ManualClock
from chassis.health import Health
from chassis.http import Limits, service_app
from chassis.pipe import PipeUnavailable
from contracts import audience
from fastapi import Request
from gateway.domain.identity import VISITOR, visitor_cookie
from gateway.domain.kept import Kept
from gateway.flows.decide import Decider
from gateway.flows.knowledge import Knowledge
from gateway.flows.people import Person
from gateway.lanes import connection, direct
from gateway.lanes.asgi import Door, Lane
from gateway.lanes.connection import UVICORN, Connection, Connections
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
        self.away, self.reads = False, 0

    def remembered(self, key: bytes) -> Person | None:
        return self.remembered_now.get(key)

    def get(self, key: bytes) -> asyncio.Future[Person]:
        if self.away:
            raise PipeUnavailable
        self.reads += 1
        answer: asyncio.Future[Person] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.003, self._deliver, key, answer)
        return answer

    def _deliver(self, key: bytes, answer: asyncio.Future[Person]) -> None:
        if self.away:
            answer.set_exception(PipeUnavailable())
            return
        found = self.remembered_now[key] = Person(self.documents.get(key))
        answer.set_result(found)


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
        self.lane = Lane(Limits(app, service="t"), self.door, self.decisions, KEYS, Reader(KEYS, RINGS, none), limiter)
        self.connections = Connections(1000, Health())
        self.servers: dict[str, uvicorn.Server] = {}
        self.ports: dict[str, int] = {}
        self.cookies = []
        for n in range(4):
            name, cookie = visitor_cookie(RING, bytes([n]) * 16)
            document = audience.Audience(audience.FORMAT, 0, b"", [], "", 0, None, False)
            self.people.documents[b"aud:v:" + name.encode()] = versioned(1, audience.encode(document))
            self.cookies.append(cookie.encode())

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[House]:
        usual: Any = partial(Connection, Connections(1000, Health()))
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


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with House().opened() as made:
        yield made


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """What the fast lane said by itself, by status."""
    counted: Counter[int] = Counter()
    say = Direct._say

    def counting(self: Direct, reply: Any) -> None:
        counted[reply.status] += 1
        say(self, reply)

    monkeypatch.setattr(direct.Direct, "_say", counting)
    return counted


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


def requests(house: House) -> list[bytes]:
    """Of every sort."""
    known = [get(b"/v1/decisions?slots=top", b"cookie: %s=%s" % (VISITOR.encode(), c)) for c in house.cookies]
    odd = get(b"/v1/decisions?slots=top", b"cookie: %s=%sx" % (VISITOR.encode(), house.cookies[0]))
    body = b"hello"
    return [
        get(), get(), *known, odd, get(b"/v1/decisions?slots=top,nowhere&locale=de"), get(b"/v1/decisions?slots=long"),
        get(b"/v1/decisions?slots=top#x"), get(b"http://localhost/v1/decisions?slots=top"), get(b"/v1/decisions?"),
        get(b"/v1/decisions"), get(b"/v1/decisions?slots=%00"), get(b"/v1/decisions?slots=top&x=" + b"y" * 3000),
        get(b"/v1/decisions?slots=top", b"host: elsewhere"), get(b"/v1/decisions?slots=top", b"x-odd: \xff"),
        get(b"/v1/decisions?slots=top", b"if-none-match: *"), get(b"/v1/decisions?slots=top", b"x-api-key: wrong"),
        get(b"/v1/decisions?slots=top", b"origin: http://a.example"), get(method=b"HEAD"), get(method=b"DELETE"),
        get(b"/v1/decisions?slots=top", b"content-length: 5") + body,
        get(b"/v1/decisions?slots=top", b"transfer-encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
        get(b"/nowhere"), get(b"/healthz"), get(b"/echo", b"content-length: 5", method=b"POST") + body,
        get(b"/healthz", b"content-length: 5", method=b"POST") + body,
        get(b"/v1/decisions?slots=top", b"expect: 100-continue", b"content-length: 5") + body,
    ]  # fmt: skip


async def test_both_lanes_say_the_same_however_requests_come(house: House, said: Counter[int]) -> None:
    chance, sorts = random.Random(5), requests(house)
    for n in range(200):
        sent = b"".join(chance.choices(sorts, k=chance.randint(1, 4))) + CLOSE
        cuts = sorted(chance.sample(range(1, len(sent)), chance.choice([0, 0, 1, 3, 20])))
        parts = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
        house.people.away = chance.random() < 0.1
        answers = []
        for lane in chance.sample(["usual", "direct"], 2):
            if chance.random() < 0.5:
                house.people.remembered_now.clear()
            answers.append(await exchange(house.ports[lane], parts))
        assert answers[0] == answers[1], (n, parts)
    assert said[200] > 100
    assert said[304] > 5
    assert house.people.reads > 50


async def test_a_request_of_every_sort_alone(house: House) -> None:
    upgrade = get(
        b"/v1/decisions?slots=top", b"upgrade: websocket", b"connection: upgrade"
    )  # all that follows is not HTTP
    for sent in (*requests(house), upgrade):
        usual, fast = [await exchange(house.ports[lane], [sent + CLOSE]) for lane in ("usual", "direct")]
        assert usual == fast, sent
        assert re.match(rb"HTTP/1.1 \d\d\d ", fast)


async def test_who_reads_slowly_gets_everything_and_costs_no_more_than_what_is_on_its_way(house: House) -> None:
    asked = 90
    for lane in ("usual", "direct"):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.ports[lane], limit=1 << 12)
        writer.write(get(b"/v1/decisions?slots=long") * asked + CLOSE)
        await asyncio.sleep(0.3)
        async with asyncio.timeout(20):
            found = await reader.read()
        assert found.count(b"HTTP/1.1 200 OK") == asked
        assert len(found) > asked * len(LONG)
        writer.close()


async def test_who_never_reads_is_let_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.1)
    monkeypatch.setattr(connection, "LOOK_S", 0.05)
    _, writer = await asyncio.open_connection("127.0.0.1", house.ports["direct"], limit=1 << 12)
    writer.write(get(b"/v1/decisions?slots=long") * 200)
    async with asyncio.timeout(5):
        while not house.connections.open:
            await asyncio.sleep(0.01)
        while house.connections.open:
            await asyncio.sleep(0.05)
    writer.close()


async def test_what_was_asked_before_the_end_is_answered_and_nothing_is_cut_off(house: House) -> None:
    async def asking(lane: str) -> tuple[int, int]:
        sent = answered = 0
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", house.ports[lane])
            except OSError:
                return sent, answered
            try:
                for _ in range(50):
                    writer.write(get(b"/v1/decisions?slots=top"))
                    head = await reader.readuntil(b"\r\n\r\n")
                    sent += 1
                    length = int(re.findall(rb"content-length: (\d+)", head)[0])
                    await reader.readexactly(length)
                    answered += 1
            except asyncio.IncompleteReadError as error:
                answered -= 2 * bool(error.partial)  # it was cut off
            except ConnectionError:
                pass
            finally:
                writer.close()

    clients = [asyncio.ensure_future(asking("direct")) for _ in range(8)]
    await asyncio.sleep(0.5)
    house.servers["direct"].should_exit = True
    counts = await asyncio.wait_for(asyncio.gather(*clients), 10)
    assert sum(sent for sent, _ in counts) == sum(answered for _, answered in counts) > 100


class TestLimits:
    async def status(self, house: House, *parts: bytes) -> bytes:
        return (await exchange(house.ports["direct"], parts)).split(b"\r\n")[0]

    async def test_a_head_has_its_bounds(self, house: House) -> None:
        for sent, status in (
            (get(b"/v1/decisions?slots=top", *(b"x-%d: y" % n for n in range(120))), b"431"),
            (get(b"/v1/decisions?slots=top", b"x-long: " + b"y" * 40_000), b"431"),
            (get(b"/" + b"y" * 40_000), b"431"),
            (b"BLAH\r\n\r\n", b"400"),
            (get(b"/\xff"), b"400"),
        ):
            found = await exchange(house.ports["direct"], [sent])
            head, _, body = found.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status), sent[:80]
            assert b"cache-control: no-store" in head
            assert b"application/problem+json" in head
            assert body.startswith(b'{"type":"urn:footfall:problem:')

    async def test_a_body_in_chunks_has_its_bounds_whatever_stands_beside_the_data(self, house: House) -> None:
        chunk = b"1;" + b"e" * 1000 + b"\r\nx\r\n"
        head = get(b"/healthz", b"transfer-encoding: chunked", method=b"POST")
        _, writer = await asyncio.open_connection("127.0.0.1", house.ports["direct"])
        writer.write(head)
        taken = 0
        with contextlib.suppress(ConnectionError):
            for _ in range(100_000):
                writer.write(chunk)
                await writer.drain()
                taken += len(chunk)
        assert taken < 16 << 20, "more than buffers take"
        writer.close()

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (b"", b""),
            (b"GET /v1/deci", b"HTTP/1.1 408"),
            (get(b"/echo", b"content-length: 9", method=b"POST") + b"x", b"HTTP/1.1 408"),
            (get() + get()[:-9], b"HTTP/1.1 200 OK"),
        ],
    )
    async def test_who_takes_too_long_is_told_and_let_go(
        self, house: House, monkeypatch: pytest.MonkeyPatch, sent: bytes, status: bytes
    ) -> None:
        monkeypatch.setattr(connection, "REQUEST_S", 0.2)
        monkeypatch.setattr(connection, "IDLE_S", 0.2)
        monkeypatch.setattr(connection, "LOOK_S", 0.05)
        found = await exchange(house.ports["direct"], [sent] if sent else [])
        assert found.startswith(status)
        assert found.count(b"HTTP/1.1 408") == (b"408" in status or b"200" in status)
        assert not house.connections.open
        assert not house.connections.of

    async def test_an_address_has_so_many_connections_and_gets_them_back(self, house: House) -> None:
        house.connections.most = 3
        held = [await asyncio.open_connection("127.0.0.1", house.ports["direct"]) for _ in range(3)]
        assert (await exchange(house.ports["direct"], [])).startswith(b"HTTP/1.1 429")
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(5):
            while house.connections.open:
                await asyncio.sleep(0.01)
        assert (await exchange(house.ports["direct"], [get() + CLOSE])).startswith(b"HTTP/1.1 200")


def test_the_fast_lane_is_open_with_the_uvicorn_that_is_installed() -> None:
    assert uvicorn.__version__ == UVICORN
