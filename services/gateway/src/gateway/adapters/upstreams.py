"""The three services, asked with short-lived tokens. Off the hot path: only misses, refreshes and writes come here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import httpx
import msgspec
from chassis import asking
from chassis.auth import Actor, ServiceTokens
from chassis.problems import Problem

SEGMENT, CONTENT, PROMO = "segment-svc", "content-svc", "promo-svc"
# A service closes a connection that is idle for five seconds: one that is reused just then takes its questions along.
MOST_IDLE_S = 2.0
ANSWER_S = 5.0  # for a whole answer, however it drips
# Bytes of an answer: to one question; to many at once, or of all that is published.
MOST_BYTES, MOST_OF_MANY = 16 << 20, 64 << 20
T = TypeVar("T")


def unavailable() -> Problem:
    """What to answer when a service that must answer does not."""
    return Problem("service-unavailable", 503, "The service cannot be reached", headers={"retry-after": "2"})


class Upstreams:
    """Bounded: at most 16 connections, so that httpx stays quick and a slow service cannot take everything."""

    def __init__(self, urls: Mapping[str, str], tokens: ServiceTokens) -> None:
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=16, keepalive_expiry=MOST_IDLE_S)
        self._tokens = tokens
        self._clients = {
            name: httpx.AsyncClient(base_url=url, timeout=5.0, limits=limits) for name, url in urls.items()
        }

    async def send(
        self, service: str, method: str, path: str, *, actor: Actor | None = None, most_s: float = ANSWER_S,
        most_bytes: int = MOST_BYTES, headers: Mapping[str, str] | None = None, **more: Any,
    ) -> httpx.Response:  # fmt: skip
        """One request, of our own or for somebody; raises httpx.HTTPError when there is no answer, or it is too late or long."""
        client, signed = self._clients[service], self._signed(service, actor, headers)
        return await asking.ask(client, method, path, headers=signed, most_s=most_s, most_bytes=most_bytes, **more)

    def opened(
        self, service: str, method: str, path: str, *, actor: Actor | None = None,
        headers: Mapping[str, str] | None = None, **more: Any,
    ) -> AbstractAsyncContextManager[httpx.Response]:  # fmt: skip
        """The same, of an answer whose body is still to be read; its connection is free at the end, read or not."""
        signed = self._signed(service, actor, headers)
        return asking.opened(self._clients[service], method, path, headers=signed, **more)

    def _signed(self, service: str, actor: Actor | None, headers: Mapping[str, str] | None) -> dict[str, str]:
        return {**(headers or {}), "authorization": f"Bearer {self._tokens.issue(service, actor)}"}

    async def json(self, service: str, method: str, path: str, shape: type[T], **more: Any) -> T:
        """What a good answer says; raises httpx.HTTPError for a bad one, and for one that does not look as it has to."""
        answer = await self.send(service, method, path, **more)
        answer.raise_for_status()
        return read(answer, shape)

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()


def read(answer: httpx.Response, shape: type[T]) -> T:
    """What an answer says. Raises httpx.HTTPError for what does not look so."""
    try:
        return msgspec.json.decode(answer.content, type=shape)
    except ValueError as error:  # msgspec's, or of a text that is no UTF-8
        raise httpx.DecodingError(str(error)[:200]) from None


_Asked = tuple[Mapping[str, Any], asyncio.Future[Any]]


def _slots(item: _Asked) -> int:
    return len(item[0].get("slots", ()))


class Coalescer:
    """Joins questions that arrive together into one request: {"asks": [...]} -> {"answers": [...]}.

    A miss per visitor and an HTTP call per miss would drown the gateway after every publish; this way its cost is
    shared, and at most IN_FLIGHT requests wait for a slow service, as long as anybody waits for them. When a service refuses
    what was joined, each is asked alone, once.

    A request has so many questions (MOST) and slots (MOST_SLOTS). Every other one has those first that ask for least, so that who
    asks for very much keeps nobody else waiting.
    """

    IN_FLIGHT, MOST, MOST_SLOTS = 2, 64, 64

    def __init__(self, upstreams: Upstreams, service: str, path: str, shape: Any, *, most_s: float) -> None:
        """`shape` has a list of `answers`; `most_s`: how long who asks waits."""
        self._upstreams, self._service, self._path = upstreams, service, path
        self._shape, self._most_s = shape, most_s
        self._queue: list[_Asked] = []
        self._by_age = False
        self._senders: set[asyncio.Task[None]] = set()

    async def ask(self, question: Mapping[str, Any]) -> Any:
        """The answer to one question; raises httpx.HTTPError when its request failed."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((question, answer))
        if len(self._senders) < self.IN_FLIGHT:
            sender = asyncio.ensure_future(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await answer

    async def _send(self) -> None:
        while batch := self._next():
            await self._answer(batch)

    def _next(self) -> list[_Asked]:
        waiting = [item for item in self._queue if not item[1].done()]  # the others gave up
        self._by_age = not self._by_age
        in_turn = waiting if self._by_age else sorted(waiting, key=_slots)
        count = slots = 0
        while count < min(self.MOST, len(in_turn)) and (not count or slots + _slots(in_turn[count]) <= self.MOST_SLOTS):
            slots, count = slots + _slots(in_turn[count]), count + 1
        batch = in_turn[:count]
        taken = {id(item) for item in batch}
        self._queue = [item for item in waiting if id(item) not in taken]
        return batch

    async def _answer(self, batch: list[_Asked]) -> None:
        try:
            body = {"asks": [question for question, _ in batch]}
            found = await self._upstreams.json(
                self._service,
                "POST",
                self._path,
                self._shape,
                json=body,
                most_s=self._most_s,
                most_bytes=MOST_OF_MANY,
            )
            for (_, answer), value in zip(batch, found["answers"], strict=True):
                if not answer.done():
                    answer.set_result(value)
        except Exception as error:  # whatever it is, somebody waits
            if len(batch) > 1 and isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error:
                await asyncio.gather(*(self._answer([item]) for item in batch))  # one is wrong, not all of them
                return
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(httpx.HTTPError(type(error).__name__))
