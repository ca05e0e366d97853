"""Who is asked may say what he likes, for as long as he likes: of that so much is taken, as it is."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from importlib.machinery import PathFinder
from typing import Any

import httpx
import pytest
from chassis.asking import ask, opened

PACKED = gzip.compress(b"0" * (8 << 20))


class Talker:
    """Answers `said` by path; counts what was taken of an answer without an end."""

    def __init__(self) -> None:
        self.url, self.taken, self.heads = "", 0, list[bytes]()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        path = head.split()[1]
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n")
        if path == b"/packed":
            writer.write(b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(PACKED) + PACKED)
        elif path == b"/exact":
            writer.write(b"content-length: 1000\r\n\r\n" + b"x" * 1000)
        else:
            writer.write(b"transfer-encoding: chunked\r\n\r\n")
            while not writer.transport.is_closing() and self.taken < 64 << 20:
                writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n" if path == b"/endless" else b"1\r\nx\r\n")
                self.taken += 65_536 if path == b"/endless" else 1
                await writer.drain()
                await asyncio.sleep(0 if path == b"/endless" else 0.02)
        writer.close()


@pytest.fixture
async def talker() -> AsyncIterator[Talker]:
    made = Talker()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await made(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60) as made:
        yield made


async def asked(client: httpx.AsyncClient, url: str, **most: Any) -> httpx.Response:
    return await ask(client, "GET", url, headers={"x-a": "b"}, **{"most_bytes": 1 << 20, "most_s": 60.0, **most})


async def test_an_answer_without_an_end_is_none(talker: Talker, client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.DecodingError, match="more than"):
        await asked(client, f"{talker.url}/endless")
    assert talker.taken < 32 << 20, "more than buffers take"


async def test_one_that_drips_is_none_either(talker: Talker, client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await asked(client, f"{talker.url}/drip", most_s=0.2)


async def test_nothing_is_unpacked(talker: Talker, client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.DecodingError, match="packed"):
        await asked(client, f"{talker.url}/packed")
    with pytest.raises(httpx.DecodingError, match="packed"):
        async with opened(client, "GET", f"{talker.url}/packed"):
            pass
    assert all(head.lower().count(b"accept-encoding: identity\r\n") == 1 for head in talker.heads)


async def test_what_is_as_long_as_it_may_be_is_taken(talker: Talker, client: httpx.AsyncClient) -> None:
    answer = await asked(client, f"{talker.url}/exact", most_bytes=1000)
    assert (answer.raise_for_status().content, answer.headers["content-length"]) == (b"x" * 1000, "1000")
    assert b"x-a: b" in talker.heads[0]
    with pytest.raises(httpx.DecodingError):
        await asked(client, f"{talker.url}/exact", most_bytes=999)


async def test_no_question_looks_for_a_module(
    talker: Talker, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks for one that is not there goes along the whole path, each time: more than the question takes."""
    await asked(client, f"{talker.url}/exact", most_bytes=1000)
    sought, find = list[str](), PathFinder.find_spec
    monkeypatch.setattr(PathFinder, "find_spec", lambda name, *more: sought.append(name) or find(name, *more))
    await asked(client, f"{talker.url}/exact", most_bytes=1000)
    assert sought == []
