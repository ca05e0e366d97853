"""The hot path to Redis or Valkey: one connection, every GET of a loop tick in one write and one round trip.

A pooled client spends most of a request's time on itself (docs/decisions/0004); this one only reads. Each write also
asks for the watched keys once, so that whoever watches a version sees it with the data.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

from chassis.pace import pause_of, pause_s
from chassis.telemetry import get_logger

Seen = Callable[[list[bytes | None]], None]
log = get_logger("pipe")


class PipeUnavailable(Exception):
    """The server is away or too slow; ask again later, and answer without it."""


def _command(*parts: bytes) -> bytes:
    head = b"*%d\r\n" % len(parts)
    return head + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class Pipe(asyncio.Protocol):
    """`get` is for any number of callers at once. `watched` are read with every write and given to `seen`."""

    def __init__(
        self, url: str, *, watched: Sequence[bytes] = (), seen: Seen | None = None, timeout_s: float = 0.25
    ) -> None:
        self._url, self._timeout_s = urlsplit(url), timeout_s
        self._watch = _command(b"MGET", *watched) if watched else b""
        self._seen = seen
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[list[asyncio.Future[Any]], asyncio.TimerHandle | None]] = deque()
        self._queue: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lost = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Stay connected until `stop` is set."""
        failures = 0
        while not stop.is_set():
            try:
                await self._connect()
                failures = 0
                await self._watchdog(stop)
            except (OSError, TimeoutError, PipeUnavailable, hiredis.ReplyError) as error:
                failures += 1
                log.warning("pipe_lost", error=type(error).__name__, failures=failures)
            self._drop()
            if not stop.is_set():
                await asyncio.sleep(pause_s(failures, base_s=0.02, most_s=1.0))

    async def _connect(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader, self._lost = hiredis.Reader(), asyncio.Event()
        async with asyncio.timeout(2.0):
            if self._url.scheme == "unix":
                transport, _ = await self._loop.create_unix_connection(lambda: self, self._url.path)
            else:
                secure = ssl.create_default_context() if self._url.scheme == "rediss" else None
                host, port = self._url.hostname or "127.0.0.1", self._url.port or 6379
                transport, _ = await self._loop.create_connection(lambda: self, host, port, ssl=secure)
            hello = []
            if self._url.password:
                user = [unquote(self._url.username).encode()] if self._url.username else []
                hello.append(_command(b"AUTH", *user, unquote(self._url.password).encode()))
            database = self._url.path.strip("/")
            if self._url.scheme != "unix" and database not in ("", "0"):
                hello.append(_command(b"SELECT", database.encode()))
            self._transport = transport
            for command in hello:
                await self._ask(command)

    async def _watchdog(self, stop: asyncio.Event) -> None:
        """Ask once in a while: a connection that says nothing is as good as lost, and watched keys stay fresh."""
        while not stop.is_set() and not self._lost.is_set():
            await self._ask(_command(b"PING"))
            if self._watch and self._seen is not None:
                self._seen(await self._ask(self._watch))
            await pause_of(0.25, self._lost, stop)

    async def _ask(self, command: bytes) -> Any:
        if self._transport is None or self._loop is None:
            raise PipeUnavailable
        answer = self._loop.create_future()
        self._waiting.append(([answer], None))
        self._transport.write(command)
        async with asyncio.timeout(1.0):
            reply = await answer
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def get(self, key: bytes) -> asyncio.Future[bytes | None]:
        """The value of a key, to be awaited. Raises PipeUnavailable without a connection, or an answer in time."""
        loop = self._loop
        if self._transport is None or loop is None:
            raise PipeUnavailable
        answer: asyncio.Future[bytes | None] = loop.create_future()
        if not self._queue:
            loop.call_soon(self._flush)
        self._queue.append((key, answer))
        return answer

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        if self._transport is None or self._loop is None:
            for _, answer in queue:
                _fail(answer)
            return
        answers = [answer for _, answer in queue]
        self._waiting.append((answers, self._loop.call_later(self._timeout_s, _fail_all, answers)))
        self._transport.write(_command(b"MGET", *[key for key, _ in queue]))

    def data_received(self, data: bytes) -> None:
        """Called by the loop with bytes of the server."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            answers, timer = self._waiting.popleft()
            if timer is not None:
                timer.cancel()
                _deliver(reply, answers)
            elif not answers[0].done():
                answers[0].set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop at the end of the connection."""
        self._drop()

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self._lost.set()
        waiting, self._waiting = self._waiting, deque()
        for answers, _ in waiting:
            _fail_all(answers)


def _fail(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(PipeUnavailable())


def _fail_all(answers: Sequence[asyncio.Future[Any]]) -> None:
    for answer in answers:
        _fail(answer)


def _deliver(reply: Any, answers: Sequence[asyncio.Future[Any]]) -> None:
    if isinstance(reply, hiredis.ReplyError):
        _fail_all(answers)
        return
    for answer, value in zip(answers, reply, strict=True):
        if not answer.done():
            answer.set_result(value)
