"""What one connection may cost, and what it gets, whatever it sends."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from gateway.lanes import connection, connections
from gateway.lanes.asgi import Door
from gateway.lanes.request import Request
from house import CLOSE, House, begun, exchange, get


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with House().opened() as made:
        yield made


async def test_requests_behind_each_other_wait_in_a_queue_that_has_an_end(house: House) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", house.ports["direct"])
    tracemalloc.start()
    try:
        with contextlib.suppress(ConnectionError):
            for _ in range(400):
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 1000)
                await writer.drain()
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < 8 << 20
    writer.close()


@pytest.mark.parametrize("lane", ["usual", "direct"])
async def test_a_few_behind_each_other_are_all_answered(house: House, lane: str) -> None:
    many = connection.MOST_WAITING - 1
    found = await exchange(house.ports[lane], [get(b"/healthz") * many + CLOSE])
    assert found.count(b"HTTP/1.1 200 OK") == many


@pytest.mark.parametrize("lane", ["usual", "direct"])
@pytest.mark.parametrize("many", [connection.MOST_WAITING + n for n in (1, 2, 3, 900)])
async def test_of_too_many_behind_each_other_those_that_were_taken_are_answered(
    house: House, lane: str, many: int
) -> None:
    found = await exchange(house.ports[lane], [get(b"/healthz") * many + (CLOSE if many <= 101 else b"")])
    taken = connection.MOST_WAITING + 1
    assert found.count(b"HTTP/1.1 200 OK") == taken
    last = found[found.rindex(b"HTTP/1.1") :]
    assert last.startswith(b"HTTP/1.1 429")
    assert b"connection: close" in last


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"\x00garbage\r\n\r\n", b"400"),
        (get(b"http://localhost"), b"400"),
        (get(b"/healthz", *(b"x-%d: y" % n for n in range(120))), b"431"),
        (get(b"/echo", b"transfer-encoding: chunked", method=b"POST") + b"x\r\n", b"400"),
        (get(b"/echo", b"content-length: 9", method=b"POST"), b"408"),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 3])
async def test_what_goes_wrong_behind_others_is_said_when_these_are_answered(
    house: House, monkeypatch: pytest.MonkeyPatch, before: int, rest: bytes, status: bytes
) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.3)
    monkeypatch.setattr(connections, "LOOK_S", 0.05)
    cookie = b"cookie: __Host-ff_vid=" + house.cookies[0]
    for asked in (get(b"/healthz"), get(b"/v1/decisions?slots=top", cookie)):
        house.people.remembered_now.clear()
        found = await exchange(house.ports["direct"], [asked * before + rest])
        statuses = re.findall(rb"HTTP/1.1 (\d+)", found)
        assert statuses == [b"200"] * before + [status]


@pytest.mark.parametrize("lane", ["usual", "direct"])
async def test_what_is_no_request_takes_no_answer_from_the_one_before(house: House, lane: str) -> None:
    found = await exchange(house.ports[lane], [get() + b"\x00garbage\r\n\r\n"])
    assert found.startswith(b"HTTP/1.1 200 OK")
    assert b'"decision_id"' in found


async def test_a_client_of_before_keep_alive_is_answered_alike(house: House) -> None:
    sent = get(b"/v1/decisions?slots=top", b"connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")
    usual, fast = [await exchange(house.ports[lane], [sent]) for lane in ("usual", "direct")]
    assert usual == fast
    assert b"200 OK" in fast


async def test_who_does_not_take_the_last_of_it_is_let_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUEST_S", "IDLE_S"):
        monkeypatch.setattr(connection, name, 0.2)
    monkeypatch.setattr(connections, "LOOK_S", 0.05)
    _, writer = await asyncio.open_connection("127.0.0.1", house.ports["direct"], limit=1 << 10)
    writer.write(get(b"/v1/decisions?slots=long") * 90)
    await house.let_go(10)
    writer.close()


async def test_a_document_that_does_not_come_is_waited_for_once(house: House) -> None:
    visitor = get(b"/v1/decisions?slots=top", b"cookie: __Host-ff_vid=" + house.cookies[0])
    await exchange(house.ports["direct"], [visitor + CLOSE])
    house.people.remembered_now.clear()
    house.people.silent = True
    before = house.people.reads
    found = await exchange(house.ports["direct"], [visitor + CLOSE])
    assert b'"degraded":["audience"]' in found or b"HTTP/1.1 200 OK" in found
    assert house.people.reads == before + 1


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        (b"localhost", True), (b"LOCALHOST:8080", True), (b"shop.example", True), (b"shopxexample", False), (b"", False),
        (b"localhost:", False), (b"localhost:" + b"9" * 30_000, False), (b"localhost:80 ", False), (b"a.shop.example", False),
    ],
)  # fmt: skip
def test_a_name_is_one_of_ours_or_not(host: bytes, ours: bool) -> None:
    door = Door(["localhost", "shop.example"])
    assert (door.refusal(Request("GET", b"/", b"", {b"host": host}, ""), [(b"host", host)]) is None) is ours


def test_without_a_name_nobody_could_come() -> None:
    with pytest.raises(ValueError, match="hosts"):
        Door([])


@pytest.mark.parametrize("lane", ["usual", "direct"])
async def test_what_comes_behind_a_body_is_no_header(house: House, lane: str) -> None:
    nameless = get(b"/v1/decisions?slots=top", b"transfer-encoding: chunked").replace(b"x-api-key: k\r\n", b"")
    trailers = b"".join(b"x-%d: y\r\n" % n for n in range(1000))
    found = await exchange(
        house.ports[lane], [nameless + b"5\r\nhello\r\n0\r\nx-api-key: k\r\n" + trailers + b"\r\n" + CLOSE]
    )
    assert found.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "sent",
    [
        get(), get(b"/v1/decisions?slots=%00"), get().replace(b"x-api-key: k\r\n", b""), get(b"/v1/decisions?"),
        get(b"/v1/decisions?slots=top", b"authorization: Bearer x"), get(method=b"HEAD"), get(method=b"DELETE"),
    ],
)  # fmt: skip
async def test_a_request_is_counted_once_whichever_way_it_goes(
    house: House, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    counted: list[object] = []

    def taken(*who: object, **more: object) -> None:
        counted.extend([*who, *more])

    for name in ("take", "take_of"):
        monkeypatch.setattr(house.decisions._limiter, name, taken, raising=False)
    said = []
    for lane in ("usual", "direct"):
        counted.clear()
        for _ in range(3):
            await exchange(house.ports[lane], [sent + CLOSE])
        said.append(sum(who in ("127.0.0.1", "address") for who in counted))
    assert said == [0 if sent.startswith(b"DELETE") else 3] * 2


@pytest.mark.parametrize("lane", ["usual", "direct"])
async def test_large_requests_of_an_address_come_to_so_much_together(
    house: House, monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    monkeypatch.setattr(connections, "MOST_OF_HOUSE", 700_000)
    head, body = get(b"/echo", b"content-length: 300000", method=b"POST"), b"x" * 300_000
    sent = []
    for _ in range(2):
        sent.append(await begun(house.ports[lane], head + body[:-1]))
    await asyncio.sleep(0.1)
    refused = b""
    with contextlib.suppress(ConnectionResetError):  # of who is still sending when the last word is said
        refused = await exchange(house.ports[lane], [head + body + CLOSE])
    assert b"200 OK" not in refused
    small = get(b"/echo", b"content-length: 60000", method=b"POST") + body[:60_000]
    assert b"HTTP/1.1 200 OK" in await exchange(house.ports[lane], [small + CLOSE]), "small ones are nobody's trouble"
    for writer in sent:
        writer.close()  # what was broken off takes no room any more
        await writer.wait_closed()
    stay = []
    for _ in range(4):  # nor does what was answered
        reader, writer = await asyncio.open_connection("127.0.0.1", house.ports[lane])
        writer.write(head + body)
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"300000"))[:15] == b"HTTP/1.1 200 OK"
        stay.append(writer)
    for writer in stay:
        writer.close()


@pytest.mark.parametrize("lane", ["usual", "direct"])
async def test_a_body_that_comes_behind_its_answer_takes_no_room_and_its_connection_ends(
    house: House, monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    monkeypatch.setattr(connections, "MOST_OF_HOUSE", 700_000)
    body, stay = b"x" * 300_000, []
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.ports[lane])
        writer.write(get(b"/nowhere", b"content-length: 300000", method=b"POST"))
        assert b"HTTP/1.1 404 " in await reader.readuntil(b"\r\n")
        writer.write(body)
        await writer.drain()
        stay.append((reader, writer))
    await asyncio.sleep(0.1)
    sent = get(b"/echo", b"content-length: 300000", method=b"POST") + body + CLOSE
    assert b"HTTP/1.1 200 OK" in await exchange(house.ports[lane], [sent])
    monkeypatch.setattr(connection, "IDLE_S", 0.2)
    if lane == "direct":
        await house.let_go(10)
    for _, writer in stay:
        writer.close()
