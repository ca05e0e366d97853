"""The fast lane: a decision is answered where the headers of its request end, by the connection itself.

What is not a plain GET of a decision, or takes more than memory and one document, goes the way of everything else, and to the
same code: uvicorn's cycle, task and messages cost more than the answer. Both ways say the same, byte for byte.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from chassis.pipe import PipeUnavailable
from chassis.problems import Problem

from gateway.domain.reply import Reply
from gateway.lanes.asgi import QUESTION, Door
from gateway.lanes.connection import Connection, Connections
from gateway.lanes.decisions import PATH, Decisions, Question
from gateway.lanes.request import Request, fields_of

START = PATH + b"?"
ELSEWHERE = (b"content-length", b"transfer-encoding", b"expect", b"upgrade")


class Direct(Connection):
    """See the module."""

    def __init__(self, connections: Connections, door: Door, decisions: Decisions, **more: Any) -> None:
        super().__init__(connections, **more)
        self.door, self.decisions, self.answered = door, decisions, False

    def on_message_begin(self) -> None:
        """A request comes; what uvicorn needs of it is made when it turns out to be one of its own."""
        self.begin()
        self.url, self.headers, self.expect_100_continue, self.answered = b"", [], False, False

    def on_headers_complete(self) -> None:
        """Answer at once, or go the usual way."""
        question = self._begun() if self.url.startswith(START) and self._is_plain() else None
        if question is not None and (self.cycle is None or self.cycle.response_complete):
            reply = self._now(question)
            if reply is not None:
                self.answered = True
                self.server_state.total_requests += 1
                self._say(reply)
                return
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super(Connection, self).on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        self.scope["headers"] = headers
        self.scope.update({QUESTION: question})  # type: ignore[misc]
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Theirs again, when it is answered."""
        if self.answered:
            self.since, self.begun = self.loop.time(), False
        else:
            super().on_message_complete()

    def _is_plain(self) -> bool:
        return (
            self.parser.get_method() == b"GET"
            and not self.flow.write_paused
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and b"#" not in self.url
            and all(name not in ELSEWHERE for name, _ in self.headers)
        )

    def _begun(self) -> Question | None:
        request = Request("GET", PATH, self.url[len(START) :], fields_of(self.headers), self.address)
        if self.door.refusal(request) is not None:
            return None
        try:
            return self.decisions.begin(request)
        except Problem:
            return None

    def _now(self, question: Question) -> Reply | None:
        try:
            return self.decisions.now(question)
        except Problem:
            return None

    def _say(self, reply: Reply) -> None:
        self.transport.write(self.all.head(reply.status, self.server_state.default_headers) + reply.lines())

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        question = cycle.scope.get(QUESTION)
        document = None if question is None else self._document(question)
        if document is None:
            super()._start_asgi_task(cycle, app)
        else:
            document.add_done_callback(lambda found: self._resume(cycle, app, question, found))

    def _document(self, question: Question) -> asyncio.Future[Any] | None:
        try:
            return self.decisions.document(question)
        except PipeUnavailable:
            return None

    def _resume(self, cycle: Any, app: Any, question: Question, document: asyncio.Future[Any]) -> None:
        """Answer one who waited for a document, if that was all that was missing."""
        if document.exception() is not None:
            question = cycle.scope[QUESTION] = replace(question, unread=True)
        if cycle.disconnected:
            return
        reply = self._now(question) if cycle.keep_alive and not self.flow.write_paused else None
        if reply is None:
            super()._start_asgi_task(cycle, app)
            return
        self._say(reply)
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        self.on_response_complete()
