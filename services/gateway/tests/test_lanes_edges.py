"""An edge asks for others: it may have any number of connections, and what it sends is theirs. Who knows nothing yet says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from gateway.lanes import connections
from house import CLOSE, RINGS, House, begun, exchange, get

KEY = b"x-front-key: " + RINGS.front


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with House().opened() as made:
        yield made


def asking(*more: bytes) -> bytes:
    """What makes the lane wait for the rest of a body."""
    return get(b"/echo", b"content-length: 9", *more, method=b"POST")


@pytest.mark.parametrize("lane", ["usual", "direct"])
async def test_connections_of_an_edge_keep_nobody_away(house: House, lane: str) -> None:
    house.connections._most = house.others._most = 3
    held = []
    for n in range(10):
        held.append(await begun(house.ports[lane], asking(KEY, b"x-fact-address: 192.0.2.%d" % n)))
        answer = await exchange(house.ports[lane], [get(b"/healthz") + CLOSE])
        assert answer.startswith(b"HTTP/1.1 200 OK"), "its probe has no key"
    for writer in held:
        writer.close()


@pytest.mark.parametrize("odd", [b"x-front-key: odd", b"x-front-key:", b"x-fact-address: 192.0.2.1"])
async def test_whoever_has_not_its_key_is_counted(house: House, odd: bytes) -> None:
    house.connections._most = 3
    held = []
    for _ in range(3):
        held.append(await begun(house.ports["direct"], asking(odd)))
    assert (await exchange(house.ports["direct"], [])).startswith(b"HTTP/1.1 429")
    for writer in held:
        writer.close()
    await house.let_go(5)
    assert not house.connections.of
    assert (house.connections.requests.all, house.connections.requests.of) == (0, {})


@pytest.mark.parametrize("lane", ["usual", "direct"])
async def test_what_somebody_has_an_edge_send_is_his_and_nobody_elses(
    house: House, monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    monkeypatch.setattr(connections, "MOST_OF_HOUSE", 700_000)
    body, held = b"x" * 300_000, []

    def sent(who: int) -> bytes:
        of = b"x-fact-address: 192.0.%d.1" % who
        return get(b"/echo", b"content-length: 300000", KEY, of, method=b"POST")

    for _ in range(2):
        held.append(await begun(house.ports[lane], get(b"/healthz", KEY) + sent(1) + body[:-1]))
    rooms = (house.connections.requests, house.others.requests)
    async with asyncio.timeout(10):
        while max(room.all for room in rooms) < 2 * len(body):
            await asyncio.sleep(0.01)
    assert b"200 OK" in await exchange(house.ports[lane], [sent(2) + body + CLOSE])
    for writer in held:
        writer.close()


@pytest.mark.parametrize("lane", ["usual", "direct"])
@pytest.mark.parametrize("unknown", ["loaded", "kills_known"])
async def test_before_it_is_known_what_there_is_nobody_is_shown_an_empty_page(
    house: House, lane: str, unknown: str
) -> None:
    knowledge = house.decisions._decider.knowledge
    setattr(knowledge, unknown, False)
    found = await exchange(house.ports[lane], [get() + CLOSE])
    assert found.startswith(b"HTTP/1.1 503")
    assert b"urn:footfall:problem:starting" in found
    setattr(knowledge, unknown, True)
    assert (await exchange(house.ports[lane], [get() + CLOSE])).startswith(b"HTTP/1.1 200")
