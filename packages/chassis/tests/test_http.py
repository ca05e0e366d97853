"""What a caller is told of a body that is wrong or did not come, and that it is nobody's fault of ours."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Annotated, Any

import asyncpg
import httpx
import pytest
from chassis import http
from chassis.db import PASSING
from chassis.health import Health
from chassis.http import MOST_DEPTH, MOST_PARTS, STORABLE, Limits, read_json, require_json, service_app
from chassis.problems import Problem
from chassis.telemetry import HTTP_SECONDS
from fastapi import Depends, Header, Request
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs


def app() -> Any:
    made = service_app("t", pings={}, health=Health())

    @made.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    @made.post("/typed")
    async def typed(body: dict[str, dict[str, int]], x_most: Annotated[int, Header(le=5)] = 0) -> dict[str, Any]:
        return body

    @made.post("/stored", dependencies=[STORABLE])
    async def stored(body: dict[str, Any]) -> dict[str, Any]:
        return body

    return made


@pytest.fixture
def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app()), base_url="http://t")


class TestWords:
    @pytest.mark.parametrize(
        ("said", "status"),
        [
            (None, 200), ("application/json", 200), ("Application/JSON; charset=utf-8", 200),
            ("application/cloudevents+json", 200), ("text/plain", 415),
            ("application/x-www-form-urlencoded", 415), ("application/jsonx", 415), ("", 415),
        ],
    )  # fmt: skip
    async def test_a_body_that_says_to_be_something_else_is_not_read(self, said: str | None, status: int) -> None:
        made = service_app("t", pings={}, health=Health())

        @made.post("/", dependencies=[Depends(require_json)])
        async def taken(request: Request) -> int:
            return len(await request.body())

        transport = httpx.ASGITransport(made)
        headers = {} if said is None else {"content-type": said}
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            answer = await client.post("/", content=b"{}", headers=headers)
        assert (answer.status_code, "json" in answer.headers.get("accept", "")) == (status, status == 415)

    async def test_a_method_that_is_not_there_names_those_that_are_and_nothing_is_kept_that_nobody_thought_of(
        self,
    ) -> None:
        transport = httpx.ASGITransport(Limits(app(), service="t"))
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            refused, plain = await client.get("/raw"), await client.post("/raw", content=b"a")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert (plain.status_code, plain.headers["cache-control"]) == (200, "no-store")


class TestPassing:
    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (asyncpg.LockNotAvailableError("ours"), 503),
            (asyncpg.InterfaceError("ours"), 503),
            (asyncpg.InternalClientError("cannot switch to state 15"), 503),
            (ConnectionResetError("ours"), 503),
            (TimeoutError("ours"), 503),
            (asyncpg.CheckViolationError("ours"), 500),
            (asyncpg.NumericValueOutOfRangeError("ours"), 500),
            (KeyError("ours"), 500),
        ],
    )
    async def test_only_what_another_try_may_mend_is_worth_one(self, error: Exception, status: int) -> None:
        made = service_app("t", pings={}, health=Health(), passing=PASSING)

        @made.get("/")
        async def raises() -> None:
            raise error

        transport = httpx.ASGITransport(made, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            answer = await client.get("/")
        assert (answer.status_code, "ours" in answer.text) == (status, False)
        assert ("retry-after" in answer.headers) == (status == 503)


class TestPointers:
    async def test_every_name_is_one_step_of_a_pointer_whatever_stands_in_it(self, client: httpx.AsyncClient) -> None:
        deep: Any = "x"
        for _ in range(70):
            deep = [deep]
        for path, body, pointer in (
            ("stored", {"a/b": "\0"}, "/a~1b"),
            ("stored", {"m~n": [1, {"\0": 1}]}, "/m~0n/1"),
            ("stored", {"a/b": deep}, "/a~1b" + "/0" * 63),
            ("typed", {"a/b": {"m~n": "x"}}, "/a~1b/m~0n"),
            ("typed", {"path": {"query": "x"}}, "/path/query"),
            ("typed", {"header": {"body": "x"}}, "/header/body"),
        ):
            answer = await client.post(f"/{path}", json=body)
            assert (answer.status_code, [e["pointer"] for e in answer.json()["errors"]]) == (422, [pointer]), body

    async def test_a_header_is_named_in_words_for_no_pointer_leads_to_it(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/typed", json={}, headers={"x-most": "6"})
        [error] = answer.json()["errors"]
        assert (error["pointer"], error["detail"].partition(":")[0]) == ("", "header x-most")

    @pytest.mark.parametrize("path", ["typed", "stored"])
    async def test_what_is_not_json_is_said_so(self, client: httpx.AsyncClient, path: str) -> None:
        answer = await client.post(f"/{path}", content=b'{"a"', headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["title"]) == (400, "The body is not JSON")


@pytest.mark.parametrize("path", ["raw", "typed", "stored"])
class TestBrokenOff:
    """Bodies that a server hands over in pieces; `None` stands for a client that went away."""

    async def _send(self, path: str, *pieces: bytes | None) -> tuple[list[int], list[Any]]:
        """Statuses sent, and what was logged."""
        left = list(pieces)
        sent: list[int] = []

        async def receive() -> Any:
            if not left:
                await asyncio.Event().wait()
            piece = left.pop(0)
            more = {"type": "http.request", "body": piece, "more_body": True}
            return {"type": "http.disconnect"} if piece is None else more

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                sent.append(message["status"])

        scope = {
            "type": "http", "method": "POST", "path": f"/{path}", "raw_path": b"", "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        with capture_logs() as logs:
            await Limits(app(), service="broken", max_body=100, body_timeout_s=0.05)(scope, receive, send)
        return sent, logs

    async def test_a_client_that_goes_away_is_counted_and_no_error(self, path: str) -> None:
        def counted() -> float:
            return sum(
                s.value
                for m in HTTP_SECONDS.collect()
                for s in m.samples
                if s.name.endswith("_count") and s.labels["service"] == "broken" and s.labels["status"] == "499"
            )

        before = counted()
        assert (await self._send(path, b'{"a', None))[1] == []
        assert counted() == before + 1

    async def test_one_that_is_too_large_or_too_slow_is_told_so_and_no_error(self, path: str) -> None:
        assert await self._send(path, *[b"x" * 60] * 2) == ([413], [])
        assert await self._send(path, b"x") == ([408], [])


async def test_a_problem_of_the_applications_own_is_not_taken_for_one_of_the_body() -> None:
    async def refuses(*_: Any) -> None:
        raise Problem("odd", 409, "Odd")

    with pytest.raises(Problem, match="Odd"):
        await Limits(refuses, service="t")(
            {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}, None, None
        )


async def test_what_the_one_in_front_raises_of_a_body_is_the_answer() -> None:
    sent = []

    async def receive() -> Any:
        raise Problem("odd", 409, "Odd")

    async def send(message: Any) -> None:
        sent.append(message.get("status"))

    for path in ("raw", "typed"):
        scope = {
            "type": "http", "method": "POST", "path": f"/{path}", "raw_path": b"", "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        await Limits(app(), service="t")(scope, receive, send)
    assert sent == [409, None] * 2


def nested(levels: int, inside: Any) -> Any:
    for level in range(levels):
        inside = [inside] if level % 2 else {"a": inside}
    return inside


def is_deep(value: Any, levels: int = MOST_DEPTH) -> bool:
    if not isinstance(value, dict | list):
        return False
    return not levels or any(is_deep(v, levels - 1) for v in (value.values() if isinstance(value, dict) else value))


WORDS = st.text(st.sampled_from('[]{}"\\,:a\n\u00e9'), max_size=6)
VALUES = st.recursive(
    WORDS | st.integers(),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(WORDS, inside, max_size=3)
        | st.builds(nested, st.integers(MOST_DEPTH - 4, MOST_DEPTH + 1), inside)
    ),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_whatever_texts_hold_depth_is_that_of_the_brackets_around_them(value: Any, ascii_only: bool) -> None:
    assert http._is_deep(json.dumps(value, ensure_ascii=ascii_only).encode()) is is_deep(value)


async def test_what_has_many_parts_is_read_beside_the_loop_of_one_sender_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, read, at_once = threading.current_thread(), [], [0]

    def reading(body: bytes, *, nul: bool) -> Any:
        at_once[0] += 1
        time.sleep(0.02)
        read.append((threading.current_thread() is here, at_once[0], nul))
        at_once[0] -= 1
        return read_json(body, nul=nul)

    monkeypatch.setattr(http, "read_json", reading)
    few, many = [0] * http.FEW_PARTS, [0] * (http.FEW_PARTS + 1)
    assert await http.json_of(json.dumps(few).encode(), nul=True) == few
    found = await asyncio.gather(*(http.json_of(json.dumps(many).encode(), "a") for _ in range(5)))
    assert found == [many] * 5
    assert read == [(True, 1, True)] + [(False, 1, False)] * 5
    with pytest.raises(Problem, match="many parts"):
        await http.json_of(json.dumps([0] * (MOST_PARTS + 1)).encode())


@pytest.mark.parametrize(
    ("value", "slug"),
    [
        (nested(MOST_DEPTH, 1), None), (nested(MOST_DEPTH - 1, {}), None), (nested(MOST_DEPTH + 1, 1), "invalid-request"),
        ([1, nested(MOST_DEPTH, {})], "invalid-request"), ({"a": ["x\0"]}, "invalid-request"), ({"a\0": 1}, "invalid-request"),
        ([0] * MOST_PARTS, None), ([0] * (MOST_PARTS + 1), "body-too-large"), ([[]] * MOST_PARTS, "body-too-large"),
        ([{}] * (MOST_PARTS // 2 + 1), "body-too-large"),
    ],
)  # fmt: skip
def test_what_is_deep_or_has_a_nul_or_many_parts_is_refused(value: Any, slug: str | None) -> None:
    body = json.dumps(value).encode()
    assert http._is_deep(body) is is_deep(value)
    if slug is None:
        assert read_json(body) == value
    else:
        with pytest.raises(Problem) as refused:
            read_json(body)
        assert refused.value.slug == slug
