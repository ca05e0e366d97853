"""The hot path to Redis or Valkey: one connection, every GET of a loop tick in one write and one round trip.

A pooled client spends most of a request's time on itself (docs/decisions/0004); this one only reads. What was read is
remembered, and kept true by the server (RESP3 client tracking): what it says comes in order, so that the news of a change comes
after every reply from before it. With the connection everything is forgotten.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

import hiredis

from chassis.cache import UNKNOWN_RUN
from chassis.pace import pause_of, pause_s
from chassis.telemetry import get_logger

Seen = Callable[[list[bytes | None], float], None]
V = TypeVar("V")
Tell = Callable[[V | None], None]
OVERHEAD = (
    600  # bytes that what is remembered takes beside its own, which count twice: as they are, and as what they mean
)
RUN, UNKNOWN = re.compile(rb"run_id:(\w+)"), UNKNOWN_RUN.encode()
_packed = cast("Callable[[tuple[bytes, ...]], bytes]", hiredis.pack_command)  # its stub knows of tuples of one only
log = get_logger("pipe")


class PipeUnavailable(Exception):
    """The server is away or too slow; ask again later, and answer without it."""


class Memory(Protocol[V]):
    """Where values are kept by key, as long as there is room for their bytes."""

    def get(self, key: bytes) -> V | None:
        """The value, unless it is gone."""

    def put(self, key: bytes, value: V, size: int) -> None:
        """Keep a value of so many bytes."""

    def drop(self, key: bytes) -> None:
        """Forget one."""

    def clear(self) -> None:
        """Forget all."""


class Pipe(asyncio.Protocol, Generic[V]):
    """`ask` and `get` are for any number of callers at once; what `read` makes of the bytes is in `memory` until they change.

    `watched` are read four times a second, and when they change, and given to `seen`, with when that was begun (seconds of the
    loop).
    """

    def __init__(
        self, url: str, *, read: Callable[[bytes | None, bytes | None], V], memory: Memory[V], mark: bytes,
        watched: Sequence[bytes] = (), seen: Seen | None = None, timeout_s: float = 0.25,
    ) -> None:  # fmt: skip
        """`read` is given what stands under a key, and under `mark` at the same instant; when that changes all is forgotten.

        A mark is `<text> <run>` (cache.run_of): the text counts while it is of this run of the server, else it is None.
        """
        self._url, self._timeout_s = urlsplit(url), timeout_s
        self._read, self._memory, self._mark, self._watched = read, memory, mark, frozenset(watched)
        self.remembered = memory.get  # at once, or None: `get` asks
        self._watch = (b"MGET", *watched) if watched else ()
        self._seen = seen
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Commanded | _Asked[V]] = deque()
        self._queue: dict[bytes, list[Tell[V]]] = {}
        self._open = self._tracked = False
        self._run, self._failures = UNKNOWN, 0  # in a row
        self._theirs: bytes | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lost, self._news = asyncio.Event(), asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Stay connected until `stop` is set."""
        while not stop.is_set():
            try:
                await self._connect()
                await self._watchdog(stop)
            except (
                Exception
            ) as error:  # of the server, or of who was told what it said: the next connection may be better
                self._failures += 1
                log.warning("pipe_lost", error=type(error).__name__, failures=self._failures)
            self._drop()
            if not stop.is_set():
                await asyncio.sleep(pause_s(self._failures, base_s=0.02, most_s=1.0))

    def belong(self, run: str | None) -> None:
        """Which run of the server it is that others write to, as they say; None when they do not. A mark counts on no other."""
        theirs = run.encode() if run else self._theirs
        if theirs != self._theirs:
            self._theirs = theirs
            self._memory.clear()

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
            self._transport = transport
            await self._greet()
        self._open = True  # not before: of a server that says nothing, nobody waits for an answer

    async def _greet(self) -> None:
        who: list[bytes] = []
        if self._url.password:
            who = [b"AUTH", unquote(self._url.username or "default").encode(), unquote(self._url.password).encode()]
        await self._ask(b"HELLO", b"3", *who)
        database = self._url.path.strip("/")
        if self._url.scheme != "unix" and database not in ("", "0"):
            await self._ask(b"SELECT", database.encode())
        try:
            found = RUN.search(await self._ask(b"INFO", b"server"))
            self._run = found[1] if found else UNKNOWN
        except hiredis.ReplyError:
            self._run = UNKNOWN
        try:
            self._tracked = await self._ask(b"CLIENT", b"TRACKING", b"ON") == b"OK"
        except hiredis.ReplyError as error:  # it is forbidden here: then everything is asked for
            log.warning("pipe_untracked", error=str(error)[:200])

    async def _watchdog(self, stop: asyncio.Event) -> None:
        """Ask once in a while: a connection that says nothing is as good as lost, and watched keys stay fresh."""
        while not stop.is_set() and not self._lost.is_set():
            await self._ask(b"PING")
            self._news.clear()
            if self._watch and self._seen is not None:
                began_s = asyncio.get_running_loop().time()
                self._seen(await self._ask(*self._watch), began_s)
            self._failures = 0
            await pause_of(0.25, self._lost, stop, self._news)

    async def _ask(self, *command: bytes) -> Any:
        if self._transport is None or self._loop is None:
            raise PipeUnavailable
        answer = self._loop.create_future()
        self._waiting.append(answer)
        self._transport.write(_packed(command))
        async with asyncio.timeout(1.0):
            reply = await answer
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def ask(self, key: bytes, tell: Tell[V]) -> None:
        """Have `tell` called, once, with what is read of a key now; with None when it cannot be had, or not in time.

        Raises PipeUnavailable without a connection.
        """
        if not self._open or self._loop is None:
            raise PipeUnavailable
        waiting = self._queue.get(key)
        if waiting is None:
            if not self._queue:
                self._loop.call_soon(self._flush)
            self._queue[key] = [tell]
        else:
            waiting.append(tell)

    async def get(self, key: bytes) -> V:
        """What is read of a key now. Raises PipeUnavailable without a connection, or an answer in time."""
        answer = asyncio.get_running_loop().create_future()
        self.ask(key, lambda found: None if answer.done() else answer.set_result(found))
        found: V | None = await answer
        if found is None:
            raise PipeUnavailable
        return found

    def _flush(self) -> None:
        queue, self._queue = self._queue, {}
        if self._transport is None or self._loop is None:
            _nothing(queue.values())
            return
        timer = self._loop.call_later(self._timeout_s, _nothing, queue.values())
        self._waiting.append((queue, timer))
        self._transport.write(_packed((b"MGET", *queue, self._mark)))

    def data_received(self, data: bytes) -> None:
        """Called by the loop with bytes of the server."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.PushNotification):
                self._told(reply)
                continue
            waiting = self._waiting.popleft()
            if isinstance(waiting, tuple):
                self._deliver(reply, *waiting)
            elif not waiting.done():
                waiting.set_result(reply)

    def _told(self, push: Any) -> None:
        if push[0] != b"invalidate" or push[1] is None:  # everything was flushed, or who knows
            self._memory.clear()
            self._news.set()
            return
        for key in push[1]:
            self._memory.drop(key)
            if key == self._mark:
                self._memory.clear()
            if key in self._watched:
                self._news.set()

    def _deliver(self, reply: Any, queue: dict[bytes, list[Tell[V]]], timer: asyncio.TimerHandle) -> None:
        if isinstance(reply, hiredis.ReplyError):
            timer.cancel()
            _nothing(queue.values())
            return
        *values, stands = reply
        text, _, run = (stands or b"").rpartition(b" ")
        ours = self._theirs in (None, UNKNOWN, self._run) or self._run == UNKNOWN
        mark = text if text and ours and (run == self._run or UNKNOWN in (run, self._run)) else None
        for (key, waiting), value in zip(queue.items(), values, strict=True):
            try:
                made = self._read(value, mark)
            except Exception as error:  # whatever stands there is nobody else's trouble
                log.error("pipe_unreadable", error=type(error).__name__)
                _nothing([waiting])
                continue
            if self._tracked:
                self._memory.put(key, made, len(key) + 2 * len(value or b"") + OVERHEAD)
            _tell(waiting, made)
        timer.cancel()  # not before: of a reply that is none, it tells who waits

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop at the end of the connection."""
        self._drop()

    def _drop(self) -> None:
        self._open = self._tracked = False
        self._memory.clear()
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self._lost.set()
        waiting, self._waiting = self._waiting, deque()
        for item in waiting:
            if isinstance(item, tuple):
                item[1].cancel()
                _nothing(item[0].values())
            elif not item.done():
                item.set_exception(PipeUnavailable())


_Commanded = asyncio.Future[Any]
_Asked = tuple[dict[bytes, list[Tell[V]]], asyncio.TimerHandle]


def _nothing(queue: Iterable[list[Tell[Any]]]) -> None:
    for waiting in queue:
        _tell(waiting, None)


def _tell(waiting: list[Tell[Any]], found: Any) -> None:
    """Each once, whatever another one does with it."""
    tells = waiting.copy()
    waiting.clear()
    for tell in tells:
        try:
            tell(found)
        except Exception as error:
            log.error("pipe_reader_failed", error=type(error).__name__, detail=str(error)[:500])
