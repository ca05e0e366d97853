"""The fast lane: a decision is answered where the headers of its request end, by the connection itself.

What is not a plain GET of a decision, or takes more than memory and one document, goes the way of everything else, and to the
same code: uvicorn's cycle, task and messages cost more than the answer. Both ways say the same, byte for byte.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from chassis.pipe import PipeUnavailable
from chassis.problems import Problem
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.domain.reply import Reply
from gateway.flows.people import Person
from gateway.lanes.asgi import QUESTION, Door
from gateway.lanes.connection import Connection
from gateway.lanes.connections import Connections
from gateway.lanes.decisions import PATH, Decisions, Question, Usual
from gateway.lanes.request import Request, fields_of, is_twice

START = PATH + b"?"
ASKED = (Usual, Question)
ELSEWHERE = frozenset((b"content-length", b"transfer-encoding", b"expect"))


class Waiting:
    """Stands for uvicorn's cycle while a document is waited for; what comes behind it on the connection queues, as behind one."""

    __slots__ = ("asked", "disconnected", "headers", "keep_alive", "query", "response_complete", "response_started")

    def __init__(self, asked: Usual | Question, query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.asked, self.query, self.headers = asked, query, headers
        self.disconnected, self.keep_alive, self.response_started, self.response_complete = False, True, False, False

    @property
    def message_event(self) -> Waiting:
        """Nobody waits for it."""
        return self

    def set(self) -> None:
        """As an event's."""


class Direct(Connection):
    """See the module."""

    def __init__(self, connections: Connections, door: Door, decisions: Decisions, **more: Any) -> None:
        super().__init__(connections, **more)
        self.door, self.decisions, self.answered = door, decisions, False

    def on_message_begin(self) -> None:
        """A request comes; what uvicorn needs of it is made when it turns out to be one of its own."""
        self.begin()
        self.url, self.headers, self.answered = b"", [], False

    def on_headers_complete(self) -> None:
        """Answer at once, or when a document comes, or go the usual way."""
        self.weigh()
        if self.is_put_off():
            return
        self.look_whose()
        free = self.cycle is None or self.cycle.response_complete
        found = self._found(free=free) if self.url.startswith(START) else None
        if isinstance(found, Reply):
            self.answered = True
            self.server_state.total_requests += 1
            self.say(found)
            return
        if free and isinstance(found, ASKED) and self._waits(found):
            return
        url, headers = self.url, self.headers
        super(Connection, self).on_message_begin()
        self.url = url
        self.headers = self.scope["headers"] = headers
        if isinstance(found, ASKED):
            found = self._question(found, url[len(START) :])
        self.scope.update({QUESTION: found})  # type: ignore[misc]
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Theirs again, when it is answered; ours, while it waits."""
        if self.answered:
            free = self.cycle is None or self.cycle.response_complete
            self.since, self.begun, self.headed = self.loop.time() if free else 0.0, False, False
        else:
            super().on_message_complete()

    def _found(self, *, free: bool) -> Reply | Usual | Question | Problem | None:
        """The answer, else what is asked, or why it is refused, once it was counted; else None: what only the usual way is for.

        `free`: nothing before is unanswered.
        """
        fields, parser = fields_of(self.headers), self.parser
        if (
            parser.get_method() != b"GET"
            or self.flow.write_paused
            or not parser.should_keep_alive()
            or not ELSEWHERE.isdisjoint(fields)
            or (b"connection" in fields and parser.get_http_version() != "1.1")
        ):
            return None
        query, decisions = self.url[len(START) :], self.decisions
        try:
            plain = not self.taken and self.chunk.isascii() and not is_twice(self.headers, fields)
            if free and plain and self.door.is_ours(fields):
                usual = decisions.usual(query, fields, self.address)
                if usual is not None:
                    person = decisions.person(usual.identity)
                    known = person is not None or usual.identity is None
                    return (decisions.met(usual, person) if known else None) or usual
            request = Request("GET", PATH, query, fields, self.address)
            if b"#" in query or self.door.refusal(request, self.headers) is not None:
                return None
            question = decisions.begin(request)
            return (decisions.now(question) if free else None) or question
        except Problem as problem:
            return problem
        except Exception:  # the usual way says so, and goes on
            return None

    def _waits(self, asked: Usual | Question) -> bool:
        """Whether a document is waited for, which may be all that is missing."""
        if asked.identity is None or self.decisions.person(asked.identity) is not None:
            return False
        waiting = Waiting(asked, self.url[len(START) :], self.headers)
        try:
            self.decisions.read(asked.identity, partial(self._resume, waiting))
        except PipeUnavailable:
            return False
        self.answered, self.cycle = True, cast("RequestResponseCycle", waiting)
        return True

    def _resume(self, waiting: Waiting, person: Person | None) -> None:
        """Answer one who waited for a document, if that was all that was missing; None: it could not be had."""
        if waiting.disconnected or self.transport.is_closing():
            return
        may_say = waiting.keep_alive and not self.flow.write_paused
        reply = self._answer(waiting, person) if may_say else None
        waiting.response_complete = True
        if reply is None:
            question = self._question(waiting.asked, waiting.query, unread=person is None)
            self._go_the_usual_way(waiting, question)
            return
        self.say(reply)
        if self.pipeline or self.last is not None:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            if not self.begun:
                self.since = self.loop.time()

    def _answer(self, waiting: Waiting, person: Person | None) -> Reply | None:
        asked = waiting.asked
        try:
            if isinstance(asked, Usual):
                return None if person is None else self.decisions.met(asked, person)
            return self.decisions.now(asked if person is not None else asked._replace(unread=True))
        except Problem:
            return None

    def _question(self, asked: Usual | Question, query: bytes, *, unread: bool = False) -> Question:
        if isinstance(asked, Question):
            return asked._replace(unread=True) if unread else asked
        return asked.question(query, self.address, unread=unread)

    def _go_the_usual_way(self, waiting: Waiting, question: Question) -> None:
        """As uvicorn would have begun it; its parser may be in a later request by now."""
        headers = waiting.headers
        scope: Any = {
            "type": "http", "asgi": {"version": self.asgi_version, "spec_version": "2.3"}, "http_version": "1.1",
            "server": self.server, "client": self.client, "scheme": self.scheme, "root_path": self.root_path,
            "headers": headers, "state": self.app_state.copy(), "method": "GET", "path": self.root_path + PATH.decode(),
            "raw_path": self.root_path.encode() + PATH, "query_string": question.request.query, QUESTION: question,
        }  # fmt: skip
        cycle = RequestResponseCycle(
            scope, self.transport, self.flow, self.logger, self.access_logger, self.access_log,
            self.server_state.default_headers, asyncio.Event(), expect_100_continue=False, keep_alive=waiting.keep_alive,
            on_response=self.on_response_complete,
        )  # fmt: skip
        cycle.more_body = False
        if cast("Any", self.cycle) is waiting:
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)
