"""Both lanes say the same, byte for byte, however a request comes: whole, split, one behind the other, slowly read."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from gateway.domain.identity import VISITOR
from gateway.lanes import connection, connections, direct
from gateway.lanes.connection import UVICORN
from gateway.lanes.direct import Direct
from house import CLOSE, LONG, House, exchange, get


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with House().opened() as made:
        yield made


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """What the fast lane said by itself, by status."""
    counted: Counter[int] = Counter()
    say = Direct.say

    def counting(self: Direct, reply: Any) -> None:
        counted[reply.status] += 1
        say(self, reply)

    monkeypatch.setattr(direct.Direct, "say", counting)
    return counted


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
        get(b"/v1/decisions?slots=top", b"connection: keep-alive", b"cookie: %s=%s" % (VISITOR.encode(), house.cookies[1])),
        get(b"/v1/decisions?slots=top,nowhere", b"cookie: %s=%s" % (VISITOR.encode(), house.cookies[0])),
        get(b"/v1/decisions?slots=top&aud="), get(b"/v1/decisions?slots=top&aud=base.main"),
        get(b"/v1/decisions?slots=top&aud=base.other"), get(b"/v1/decisions?slots=top&aud=&aud="),
        get(b"/nowhere"), get(b"/healthz"), get(b"/echo", b"content-length: 5", method=b"POST") + body,
        get(b"/healthz", b"content-length: 5", method=b"POST") + body,
        get(b"/v1/decisions?slots=top", b"expect: 100-continue", b"content-length: 5") + body,
        get(b"/v1/decisions?slots=top", b"upgrade: websocket", b"connection: upgrade"),
    ]  # fmt: skip


async def test_both_lanes_say_the_same_however_requests_come(house: House, said: Counter[int]) -> None:
    chance, sorts = random.Random(5), requests(house)
    for n in range(200):
        sent = b"".join(chance.choices(sorts, k=chance.randint(1, 4))) + CLOSE
        cuts = sorted(chance.sample(range(1, len(sent)), chance.choice([0, 0, 1, 3, 20])))
        parts = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
        house.people.away, house.people.silent = chance.random() < 0.1, chance.random() < 0.1
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
    for sent in requests(house):
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
    monkeypatch.setattr(connections, "LOOK_S", 0.05)
    _, writer = await asyncio.open_connection("127.0.0.1", house.ports["direct"], limit=1 << 12)
    writer.write(get(b"/v1/decisions?slots=long") * 200)
    await house.let_go(5)
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
        monkeypatch.setattr(connections, "LOOK_S", 0.05)
        found = await exchange(house.ports["direct"], [sent] if sent else [])
        assert found.startswith(status)
        assert found.count(b"HTTP/1.1 408") == (b"408" in status or b"200" in status)
        assert not house.connections.open
        assert not house.connections.of

    async def test_an_address_has_so_many_connections_and_gets_them_back(self, house: House) -> None:
        house.connections._most = 3
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
