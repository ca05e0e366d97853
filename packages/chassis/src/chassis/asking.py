"""Questions to others over HTTP. Nobody is believed to end what he says: an answer has so many bytes, and so long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

SHORT = 64 << 10  # bytes of an answer that says a few words


async def ask(
    client: httpx.AsyncClient, method: str, url: str, *, most_bytes: int, most_s: float, **more: Any
) -> httpx.Response:
    """One question and the whole answer.

    Raises httpx.HTTPError when there is none, or not all of it in `most_s` seconds and `most_bytes` bytes.
    """
    try:
        async with asyncio.timeout(most_s), opened(client, method, url, **more) as answer:
            content = bytearray()
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > most_bytes:
                    raise httpx.DecodingError(f"more than {most_bytes} bytes")
            return httpx.Response(
                answer.status_code, headers=answer.headers, content=bytes(content), request=answer.request
            )
    except TimeoutError:
        raise httpx.ReadTimeout("not in time") from None


@asynccontextmanager
async def opened(
    client: httpx.AsyncClient, method: str, url: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> AsyncIterator[httpx.Response]:
    """The same, of an answer whose body is still to be read; its connection is free at the end, read or not.

    It comes as it is: what is packed may be any size once it is unpacked. Raises httpx.DecodingError for one that is.
    """
    asked = client.build_request(method, url, headers={**(headers or {}), "accept-encoding": "identity"}, **more)
    answer = await client.send(asked, stream=True)
    try:
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise httpx.DecodingError("nobody asked for it to be packed")
        yield answer
    finally:
        await answer.aclose()
        _let_go(answer)


def _let_go(answer: httpx.Response) -> None:
    """Free an answer that was read of the circle in which httpx leaves it.

    In that circle question and answer, and their client, would stay until somebody looks for circles, which is seldom.
    """
    answer.stream = httpx.ByteStream(b"")
