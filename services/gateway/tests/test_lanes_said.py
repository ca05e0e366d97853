"""What a request is, whatever its head says beside it: an upgrade is not taken, blanks say nothing, nothing is said twice."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from gateway.domain.identity import VISITOR
from house import CLOSE, House, exchange, get

H2C = (b"connection: Upgrade, HTTP2-Settings", b"http2-settings: AAMAAABkAAQAAP__", b"upgrade: h2c")
WEBSOCKET = (b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-version: 13", b"sec-websocket-key: eA==")
INNER = get(b"/healthz")  # as a body it is one


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with House().opened() as made:
        yield made


async def said(house: House, *parts: bytes) -> bytes:
    """What both lanes say, which is the same."""
    usual, fast = [await exchange(house.ports[lane], parts) for lane in ("usual", "direct")]
    assert usual == fast, parts
    return fast


def statuses(found: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1.1 (\d+)", found)


def requests(*more: bytes) -> list[bytes]:
    """With a body, in chunks, waited for, and without one."""
    sized, chunked = b"content-length: %d" % len(INNER), b"transfer-encoding: chunked"
    return [
        get(b"/echo", sized, *more, method=b"POST") + INNER,
        get(b"/echo", sized, b"expect: 100-continue", *more, method=b"POST") + INNER,
        get(b"/echo", chunked, *more, method=b"POST") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER),
        get(b"/v1/decisions?slots=top", sized, *more) + INNER,
        get(b"/v1/decisions?slots=top", *more), get(b"/healthz", *more), get(b"/healthz", *more, method=b"HEAD"),
    ]  # fmt: skip


class TestFields:
    @pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t  "])
    async def test_blanks_around_a_value_are_no_part_of_it(self, house: House, blanks: bytes) -> None:
        for plain in (
            get(),
            get(b"/nowhere"),
            get(b"/echo", b"content-length: 2", b"expect: 100-continue", method=b"POST"),
        ):
            head, end, _ = plain.partition(b"\r\n\r\n")
            line, *lines = head.split(b"\r\n")
            padded = [line, *(x.replace(b": ", b":" + blanks) + blanks for x in lines)]
            body = b"{}" if b"POST" in line else b""
            assert await said(house, b"\r\n".join(padded) + end + body + CLOSE) == await said(
                house, plain + body + CLOSE
            )

    @pytest.mark.parametrize(
        "name", [b"host", b"x-api-key", b"idempotency-key", b"if-match", b"X-Front-Key", b"x-fact-city"]
    )
    @pytest.mark.parametrize("values", [(b"k", b"k"), (b"k", b"l"), (b"l", b"k")])
    async def test_what_says_one_thing_is_not_said_twice(
        self, house: House, name: bytes, values: tuple[bytes, bytes]
    ) -> None:
        twice = [b"%b: %b" % (name, value) for value in values]
        for target in (b"/v1/decisions?slots=top", b"/v1/decisions", b"/nowhere", b"/healthz"):
            bare = get(target).replace(b"x-api-key: k\r\n", b"") if name == b"x-api-key" else get(target)
            for plain in (get(target), get(target)):  # from memory, too
                found = await said(house, plain + bare[:-2] + b"\r\n".join(twice) + b"\r\n\r\n" + CLOSE)
                assert statuses(found)[1] == b"400"

    async def test_what_is_a_list_has_as_many_lines_as_it_likes(self, house: House) -> None:
        cookies = [b"cookie: a=b", b"cookie: __Host-ff_vid=" + house.cookies[0]]
        lists = (
            b'if-none-match: "a"',
            b"accept: */*",
            b"accept-language: de",
            b"via: 1.1 a",
            b"x-forwarded-for: 1.2.3.4",
        )
        sent = get(b"/v1/decisions?slots=top", *cookies, *lists, *lists)
        assert statuses(await said(house, sent + sent + CLOSE)) == [b"200", b"200", b"404"]

    @pytest.mark.parametrize("name", [b"x-odd", b"cookie", b"if-none-match", b"idempotency-key", b"accept"])
    async def test_every_line_of_it_is_ascii(self, house: House, name: bytes) -> None:
        good, bad = name + b": a", name + b": \xe9"
        for target in (b"/v1/decisions?slots=top", b"/nowhere", b"/healthz"):
            for lines in ([bad], [bad, good], [good, bad]):
                found = await said(house, get(target), get(target, *lines) + CLOSE)
                assert statuses(found)[1] == b"400"


class TestTarget:
    @pytest.mark.parametrize("path", [b"/v1/decisions?slots=top", b"/nowhere"])
    async def test_whom_it_names_counts_more_than_the_header(self, house: House, path: bytes) -> None:
        known = statuses(await said(house, get(path) + CLOSE))[0]
        for authority, host, status in (
            (b"localhost", b"localhost", known), (b"LOCALHOST:80", b"elsewhere", known), (b"evil.example", b"localhost", b"421"),
            (b"me@localhost", b"localhost", b"421"), (b"localhost@evil.example", b"localhost", b"421"),
        ):  # fmt: skip
            sent = get(b"http://" + authority + path).replace(b"host: localhost", b"host: " + host)
            assert statuses(await said(house, sent + CLOSE))[0] == status, sent
        twice = get(b"http://localhost" + path, b"host: localhost")
        assert statuses(await said(house, twice + CLOSE))[0] == b"400"

    async def test_without_a_path_it_is_no_request(self, house: House) -> None:
        for target in (b"http://evil.example?slots=top", b"http://localhost", b"http:///nowhere"):
            assert statuses(await said(house, get(target) + CLOSE))[0] in (b"400", b"421"), target


class TestUpgrade:
    @pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET, (*H2C, *WEBSOCKET)])
    async def test_a_request_is_answered_as_without_it(self, house: House, upgrade: tuple[bytes, ...]) -> None:
        for plain, asking in zip(requests(), requests(*upgrade), strict=True):
            expected = await said(house, plain + CLOSE)
            assert await said(house, asking + CLOSE) == expected, asking
            head, behind, body = asking.partition(b"\r\n\r\n")
            assert await said(house, head + behind, body + CLOSE) == expected
            assert await said(house, head[:-9], head[-9:] + behind + body[:9], body[9:] + CLOSE) == expected

    async def test_those_behind_each_other_are_all_answered(self, house: House) -> None:
        plain, asking = b"".join(requests()), b"".join(requests(*H2C))
        assert await said(house, asking * 3 + CLOSE) == await said(house, plain * 3 + CLOSE)

    async def test_a_client_of_before_upgrades_is_answered_too(self, house: House) -> None:
        plain, asking = (get(b"/v1/decisions?slots=top", *more).replace(b"HTTP/1.1", b"HTTP/1.0") for more in ((), H2C))
        assert await said(house, asking) == await said(house, plain)

    async def test_its_limits_are_those_of_any(self, house: House) -> None:
        many = get(b"/healthz", *H2C, *(b"x-%d: y" % n for n in range(98)))
        assert (await said(house, many + CLOSE)).startswith(b"HTTP/1.1 431")
        assert (await said(house, get(b"/healthz", *H2C, b"x: " + b"y" * 40_000))).startswith(b"HTTP/1.1 431")

    async def test_nobody_is_connected_to_anybody_else(self, house: House) -> None:
        for target in (b"localhost:80", b"http://localhost/healthz"):
            found = await said(house, get(target, method=b"CONNECT") + INNER)
            assert found.startswith(b"HTTP/1.1 400")
            assert found.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("lane", ["usual", "direct"])
async def test_who_has_said_all_and_says_so_is_answered(house: House, lane: str) -> None:
    echo = get(b"/echo", b"content-length: 5", method=b"POST") + b"hello"
    known = get(b"/v1/decisions?slots=top", b"cookie: %s=%s" % (VISITOR.encode(), house.cookies[2]))
    half = get(b"/echo", b"content-length: 5", method=b"POST") + b"he"
    for sent, answers in (([echo], 1), ([known], 1), ([get()], 1), ([echo, known, get(), echo], 4), ([half], 0)):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.ports[lane])
        writer.write(b"".join(sent))
        writer.write_eof()
        async with asyncio.timeout(10):
            found = await reader.read()
        writer.close()
        assert found.count(b"HTTP/1.1 200 OK") == answers, sent
    async with asyncio.timeout(5):
        while house.connections.open or house.others.open:
            await asyncio.sleep(0.01)
