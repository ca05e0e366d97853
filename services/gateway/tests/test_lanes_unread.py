"""What is said to who does not read: so much at most, of a connection, of an address, and in all, and for a while."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from gateway.lanes import connection, connections
from gateway.lanes.connection import Connection
from gateway.lanes.connections import Room
from house import CLOSE, LONG, House, exchange, get

FAST, USUAL = get(b"/v1/decisions?slots=long"), get(b"/v1/decisions?slots=long", b"content-length: 0")
MANY = 90  # of these are more than the buffers of a system take


class Counting:
    """Stands in front of the lane: how many requests were begun, and are not answered."""

    def __init__(self, lane: Any) -> None:
        self.lane, self.begun = lane, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        try:
            await self.lane(scope, receive, send)
        finally:
            self.begun -= 1


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(connections, "LOOK_S", 0.05)
    made = House()
    made.lane = Counting(made.lane)
    async with made.opened():
        yield made


@pytest.fixture
async def deaf(house: House) -> AsyncIterator[Any]:
    """Connections that send, and read what one asks them to."""
    opened: list[asyncio.StreamWriter] = []

    async def connect(sent: bytes) -> tuple[asyncio.StreamReader, int]:
        sock = socket.create_connection(("127.0.0.1", house.ports["direct"]))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
        opened.append(writer)
        writer.write(sent)
        return reader, sock.getsockname()[1]

    yield connect
    for writer in opened:
        writer.transport.abort()


async def stuck(house: House, count: int) -> None:
    """Wait until so many have unsent bytes."""
    async with asyncio.timeout(20):
        while sum(c.unsent > 0 for c in house.connections.open) < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("asked", [FAST * 2, USUAL * 2, FAST + USUAL], ids=["fast", "usual", "mixed"])
async def test_who_did_not_take_an_answer_is_made_no_other(house: House, deaf: Any, asked: bytes) -> None:
    await exchange(house.ports["direct"], [FAST + CLOSE])
    reader, _ = await deaf(asked * (MANY // 2) + CLOSE)
    await stuck(house, 1)
    await asyncio.sleep(0.1)
    (one,) = (c for c in house.connections.open if c.unsent)
    assert house.lane.begun == 0
    assert one.transport.get_write_buffer_size() <= one.unsent < 2 * len(LONG)
    async with asyncio.timeout(30):  # who reads in the end gets everything
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == MANY
    assert not house.connections.answers.of
    assert house.connections.answers.all == 0


@pytest.mark.parametrize("asked", [FAST, USUAL], ids=["fast", "usual"])
@pytest.mark.parametrize("bound", ["MOST_OF_HOUSE", "MOST_OF_ALL"])
async def test_what_is_not_taken_comes_to_so_much_and_who_waited_for_longest_goes(
    house: House, deaf: Any, monkeypatch: pytest.MonkeyPatch, asked: bytes, bound: str
) -> None:
    monkeypatch.setattr(connections, bound, most := 2 * len(LONG))
    _, first = await deaf(asked * MANY)
    await stuck(house, 1)
    others, seen = [await deaf(asked * MANY) for _ in range(8)], 0
    async with asyncio.timeout(20):
        while (
            first in (left := {c.client[1]: c.unsent for c in house.connections.open if c.client}) or 0 in left.values()
        ):
            seen = max(seen, house.connections.answers.all)
            await asyncio.sleep(0.01)
    assert {port for _, port in others} > set(left) > set()
    assert seen <= most
    answered = await exchange(house.ports["direct"], [get() + CLOSE])
    assert answered.startswith(b"HTTP/1.1 200")


async def test_who_takes_nothing_is_let_go_and_who_reads_slowly_is_not(
    house: House, deaf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "UNREAD_S", 2.0)
    monkeypatch.setattr(connection, "REQUEST_S", 1000)
    slow, _ = await deaf(FAST * MANY + CLOSE)
    await deaf(FAST * MANY)
    await stuck(house, 2)
    found = 0
    async with asyncio.timeout(60):
        while data := await slow.read(1 << 16):
            found += len(data)
            await asyncio.sleep(0.01)
        assert found > MANY * len(LONG)
        while house.connections.open:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("taken", "most_s"), [(0, connection.UNREAD_S), (1, connection.REQUEST_S)])
@pytest.mark.parametrize("closing", [False, True])
def test_who_takes_a_little_has_as_long_as_for_a_request(taken: int, most_s: float, closing: bool) -> None:
    left, gone = [1000], []
    transport = SimpleNamespace(is_closing=lambda: closing, get_write_buffer_size=lambda: left[0])
    one: Any = SimpleNamespace(
        transport=transport, unsent=1, stuck_s=0.0, left=0, moved_s=0.0, drop=lambda: gone.append(1)
    )
    for now_s in range(100, 101 + int(most_s)):
        Connection.look(one, now_s)
        left[0] -= taken
    assert not gone
    Connection.look(one, 101 + most_s)
    assert gone


def test_a_house_is_full_alone_and_all_are_full_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_OF_HOUSE", 10)
    monkeypatch.setattr(connections, "MOST_OF_ALL", 25)
    room = Room()
    assert [room.hold("a", 10), room.hold("a", 1), room.hold("b", 10), room.hold("c", 10)] == [True, False, True, False]
    assert room.is_full("a")
    assert not room.is_full("b")
    assert room.hold("a", -11)
    assert room.hold("b", -10)
    assert room.hold("c", -10)
    assert (room.all, room.of) == (0, {})


async def test_when_all_places_are_taken_who_has_most_of_them_gives_one_up_for_each_who_comes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.connections, "_most_of_all", 6)
    port = house.ports["direct"]
    many = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
    for _, writer in many:
        writer.write(b"GET /v1/decisions?slots=")
    few = await asyncio.gather(
        *(asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.0.{2 + n}", 0)) for n in range(4))
    )
    assert len(house.connections.open) <= 6
    for reader, writer in few:
        writer.write(CLOSE)
        assert (await reader.read()).startswith(b"HTTP/1.1 404")
    async with asyncio.timeout(10):
        for reader, _ in many[:3]:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
    assert not any(reader.at_eof() for reader, _ in many[3:])
    for _, writer in [*many, *few]:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in [*many, *few]), return_exceptions=True)
    while house.connections.open:
        await asyncio.sleep(0.01)
    assert (house.connections.of, house.connections._counted) == ({}, 0)
