"""A connection of uvicorn's, within limits: how much a request may say before its body, for how long, how many from one address.

It leans on the inside of uvicorn, whose version is UVICORN; with another one the gateway does without (app.py).
"""

from __future__ import annotations

import re
from typing import Any

import httptools
from chassis.problems import Problem
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.adapters.limits import house_of
from gateway.domain.reply import Reply
from gateway.lanes.asgi import refused
from gateway.lanes.connections import Connections
from gateway.lanes.request import fields_of, front_asks_for

UVICORN = "0.54.0"
MOST_HEAD, MOST_HEADERS, MOST_UNREAD = (
    32_768,
    100,
    2 << 20,
)  # bytes of all headers; of them; bytes of one request, as sent
SMALL = 65_536  # bytes of a request that nobody counts
MOST_WAITING = 100  # requests behind one that is being answered
UNREAD_S = 10.0  # for which somebody may take nothing of an answer; of REQUEST_S, for which he may take all of it
IDLE_S, REQUEST_S = 75, 30.0  # caches keep an idle connection for a minute: they are to close it, not we
AUTHORITY = re.compile(rb"[^/?#]+://([^/?#]*)")  # of a target that is no path
TOO_MANY = Problem("too-many-headers", 431, "Too many headers")
TOO_LARGE = Problem("headers-too-large", 431, "The headers are too large")
TOO_LONG = Problem("body-too-large", 413, "The request is too large")
TOO_EAGER = Problem("too-many-requests", 429, "Too many requests at once")
TOO_SLOW = Problem("request-too-slow", 408, "The request came too slowly")
BUSY = Problem("busy", 503, "Too much is being sent", headers={"retry-after": "1"})
CROWD = Problem("too-many-connections", 429, "Too many connections", headers={"retry-after": "5"})
NO_HTTP = Problem("invalid-request", 400, "That is not HTTP")


class Connection(HttpToolsProtocol):
    """`since`: from when on the other side is to say or take something, in seconds of the loop; 0 while we are at work. `house`:
    whose the bytes are that it holds. `edge`: whether it is an edge's, which none knows before its first request.
    """

    def __init__(self, connections: Connections, **more: Any) -> None:
        super().__init__(**more)
        self.all, self.since, self.begun = connections, 0.0, False
        self.unsent, self.left, self.stuck_s, self.moved_s = 0, 0, 0.0, 0.0
        self.taken, self.chunk, self.headed, self.ended, self.used = 0, b"", False, False, False
        self.anew, self.held, self.start = b"", 0, 0
        self.edge: bool | None = None
        self.put_off: tuple[RequestResponseCycle, Any] | None = None  # until they took what was said before
        self.last: Problem | None = None  # to be said when all that came before is answered

    def connection_made(self, transport: Any) -> None:
        """One more."""
        super().connection_made(transport)
        self.since, self.address = self.loop.time(), self.client[0] if self.client else ""
        self.all.open.add(self)
        self.house = house_of(self.address)
        if not self.all.count(self.house):
            self.end(CROWD)

    def connection_lost(self, exc: Exception | None) -> None:
        """One less."""
        self.all.forget(self)
        self.hold(0)
        self.owe(0)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's says so
        """They say nothing more: what came whole is answered, and then it is over."""
        if self.begun or self.ended or self.cycle is None or self.cycle.response_complete:
            return False
        last = self.pipeline[0][0] if self.pipeline else self.cycle
        last.keep_alive = False
        return True

    def end(self, problem: Problem) -> None:
        """Answer what came whole before, say why, unless an answer to this is on its way, and close."""
        if self.ended or self.transport.is_closing():
            return
        self.ended = True
        if self.headed and not self.pipeline:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.part(None if self.cycle.response_started else problem)
            return
        if self.headed:
            self.pipeline.popleft()  # this one, which was not begun
        if self.cycle is None or self.cycle.response_complete:
            self.part(problem)
        else:
            self.last = problem

    def part(self, problem: Problem | None) -> None:
        """Close, with the last word."""
        if problem is not None:
            self.say(refused(problem).marked([(b"connection", b"close")]))
        self.transport.close()

    def say(self, reply: Reply) -> None:
        """Past uvicorn's cycle."""
        self.transport.write(self.all.head(reply.status, self.server_state.default_headers) + reply.lines())

    def look(self, now_s: float) -> None:
        """End what takes too long."""
        if self.transport.is_closing() or self.unsent:  # they are to take what is left
            left = self.transport.get_write_buffer_size()
            if not self.stuck_s or left < self.left:
                self.moved_s = now_s
            self.stuck_s, self.left = self.stuck_s or now_s, left
            if now_s - self.moved_s > UNREAD_S or now_s - self.stuck_s > REQUEST_S:
                self.drop()
        elif self.since and self.begun and now_s - self.since > REQUEST_S:
            self.end(TOO_SLOW)
        elif self.since and not self.begun and now_s - self.since > (IDLE_S if self.used else REQUEST_S):
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """What comes is counted: a request may not go on for ever, whatever it is made of."""
        if self.ended:
            return
        self.taken += len(data)
        self.chunk = data
        self._unset_keepalive_if_required()
        self._read(memoryview(data))
        self.chunk = b""
        if self.begun and not self.headed and self.taken > MOST_HEAD:
            self.end(TOO_LARGE)
        elif self.taken > MOST_UNREAD:
            self.end(TOO_LONG)
        elif self.headed and not self.pipeline and self.cycle.response_complete:
            self.hold(0)  # nobody keeps what comes behind the answer
        elif self.start + self.taken > SMALL and not self.hold(max(self.start + self.taken, self.held)):
            self.end(BUSY)

    def hold(self, count: int) -> bool:
        """A request is so large by now; whether there is room for it."""
        more, self.held = count - self.held, count
        return self.all.requests.hold(self.house, more) if more else True

    def owe(self, count: int) -> bool:
        """So many bytes are not taken; whether there is room for them."""
        more, self.unsent = count - self.unsent, count
        return self.all.answers.hold(self.house, more) if more else True

    def drop(self) -> None:
        """Take back what they do not take. Later: whoever is writing to it goes on."""
        self.owe(0)
        self.loop.call_soon(self.transport.abort)

    def _read(self, rest: memoryview) -> None:
        """All of it. A request whose upgrade we do not take is read once more without that, and then what is behind its head."""
        while True:
            try:
                if self.anew:
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
                    self.parser.feed_data(self.anew)
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            except httptools.HttpParserError:
                self.end(NO_HTTP)
                return

    def on_message_begin(self) -> None:
        """A request comes."""
        self.begin()
        super().on_message_begin()

    def begin(self) -> None:
        """Count anew, but for one that is read once more."""
        if self.anew:
            self.anew = b""
            return
        self.since, self.begun, self.headed, self.taken, self.used = self.loop.time(), True, False, 0, True
        self.start = len(self.chunk)  # at most so much of it came with what was before

    def on_header(self, name: bytes, value: bytes) -> None:
        """As little as can be: it is called for each. What they come to is seen at the end of them, and of what came.

        What comes behind a body is none (RFC 9110, 6.5.1), and blanks around a value are no part of it (5.5).
        """
        if not self.headed:
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def weigh(self) -> None:
        """Refuse headers that are too many, or too large."""
        if len(self.headers) > MOST_HEADERS:
            self._refuse(TOO_MANY)
        if (
            self.taken + len(self.chunk) > MOST_HEAD
            and len(self.url) + sum(len(n) + len(v) for n, v in self.headers) > MOST_HEAD
        ):
            self._refuse(TOO_LARGE)

    def is_put_off(self) -> bool:
        """Whether it is to be read once more, without its upgrade: we take none, and who takes none answers the request as any
        other (RFC 9110, 7.8). For the parser it ends here, body or not, and whatever follows is of another protocol.
        """
        if not self.parser.should_upgrade():
            return False
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(NO_HTTP)
        version = self.parser.get_http_version().encode()
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.anew = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(lines))
        return True

    def _go_by_target(self) -> None:
        """Whom the target names counts, not the header (RFC 9112, 3.2.2)."""
        if named := AUTHORITY.match(self.url):
            host = named[1]
            self.headers[:] = [(name, host if name == b"host" else value) for name, value in self.headers]

    def _refuse(self, problem: Problem) -> None:
        self.end(problem)
        raise httptools.HttpParserError(problem.slug)  # nothing that follows is read

    def look_whose(self) -> None:
        """An edge asks for others: what comes and goes is theirs, and it may have any number of connections."""
        if self.edge is False:  # as it is of every browser
            return
        client = front_asks_for(fields_of(self.headers), self.all.front)
        if self.edge is None:
            self.edge = client is not None
            if self.edge and self in self.all.open:
                self.all.uncount(self.house)
        if not self.held and not self.unsent:
            self.house = house_of(client or self.address)

    def on_headers_complete(self) -> None:
        """What is said from now on is said to it."""
        if len(self.pipeline) >= MOST_WAITING:
            self._refuse(TOO_EAGER)
        self.weigh()
        if self.is_put_off():
            return
        self.look_whose()
        self._go_by_target()
        self.expect_100_continue = any(n == b"expect" and v.lower() == b"100-continue" for n, v in self.headers)
        super().on_headers_complete()
        self.headed = True

    def on_message_complete(self) -> None:
        """It is ours to answer, if it is not answered yet."""
        if self.anew:
            return
        done = self.cycle is not None and self.cycle.response_complete and not self.pipeline
        self.since, self.begun = self.loop.time() if done else 0.0, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Theirs again."""
        if self.last is not None and not self.pipeline and not self.transport.is_closing():
            self.part(self.last)
        self.hold(0)
        if not self.begun:
            self.since = 0.0 if self.pipeline else self.loop.time()
        super().on_response_complete()
        if self.pipeline and not self.ended:  # nothing more until these are answered; later it is dropped
            self.flow.pause_reading()

    def pause_writing(self) -> None:
        """They do not read what we say: nothing more is said, so this is all that there will be."""
        super().pause_writing()
        self.stuck_s = self.moved_s = self.loop.time()
        self.left = self.transport.get_write_buffer_size()
        if not self.owe(self.left):
            self.all.make_room(self.house)

    def resume_writing(self) -> None:
        """They do."""
        super().resume_writing()
        self.stuck_s = 0.0
        self.owe(0)
        if self.put_off is not None and not self.transport.is_closing():
            (cycle, app), self.put_off = self.put_off, None
            self._start_asgi_task(cycle, app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Not before they took what was said: an answer to this would have to wait here, too."""
        if self.flow.write_paused:
            self.put_off = (cycle, app)
        else:
            super()._start_asgi_task(cycle, app)
