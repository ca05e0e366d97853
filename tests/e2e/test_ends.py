"""What is switched off ends within two seconds, though the definitions of segments that newer things name cannot be had."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import httpx
import pytest
import redis
from devstack.stack import Stack
from devstack.testing import until

pytestmark = [pytest.mark.servers, pytest.mark.slow]
TIMES = 5
WORDS = {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": "hi"}}]}}
LATE_S = 2.0


def test_it_ends_and_nothing_new_is_shown_to_whom_it_may_not_be_for(
    services: Callable[..., AbstractContextManager[Stack]],
) -> None:
    with services("ends", extra={"gateway": {"BUDGET_MS": "2000"}}) as stack, httpx.Client(timeout=30) as client:

        def ask(method: str, path: str, key: str, body: Any = None, **headers: str) -> httpx.Response:
            return client.request(method, stack.url + path, json=body, headers={"x-api-key": key, **headers})

        def make(noun: str, key: str, **body: Any) -> None:
            answer = ask("POST", f"/admin/v1/{noun}", stack.secrets.admin, {"key": key, **body})
            assert answer.status_code == 201, answer.text

        def sees() -> str:
            answer = ask("GET", "/v1/decisions?slots=top", stack.secrets.publishable)
            return str(answer.json()["slots"]["top"]["blocks"][0]["key"])

        def cart() -> tuple[int, int]:
            body = {"lines": [{"id": "1", "price": 1000}]}
            wish = ask(
                "POST", "/v1/redemptions", stack.secrets.secret, {"coupon": "HUSH", "customer": "a"},
                **{"idempotency-key": str(time.monotonic_ns())},
            )  # fmt: skip
            return ask("POST", "/v1/cart", stack.secrets.secret, body).json()["discount"], wish.status_code

        block = {"title": "t", "status": "live", "slots": ["top"], "content": WORDS}
        rule = {"name": "n", "status": "live", "all_groups": True, "action": {"type": "percent", "value": 10}}
        make("slots", "top", title="t", default=WORDS)
        make("blocks", "here", **block, priority=1)
        make("cart-rules", "ten", **rule)
        make("cart-rules", "hush", **rule, coupon="HUSH")
        condition = {"orders": {"measure": "count", "op": "gte", "value": 1}}
        make("segments", "buyers", name="b", status="active", condition=condition)
        make("cart-rules", "no-buyer", **rule, segments={"none_of": ["buyers"]})
        until(lambda: (sees(), *cart()) == ("here", 190, 201))
        # A version of the segments is told of that no gateway can get, and something is saved that names some of it.
        store = redis.Redis.from_url(stack.redis)
        version = store.get("ver:segment")
        segments = stack.children["segment_svc"].popen
        assert segments is not None
        segments.send_signal(signal.SIGSTOP)
        store.set("ver:segment", 1_000_000)
        make("blocks", "for-no-buyer", **block, priority=2, audience={"none_of": ["buyers"]})
        for path in ("blocks/here", "cart-rules/ten", "cart-rules/hush"):
            assert ask("POST", f"/admin/v1/{path}/disable", stack.secrets.admin).status_code == 200
        time.sleep(LATE_S)
        assert (sees(), *cart()) == ("top:default", 0, 409)
        answer = ask("GET", "/v1/decisions?slots=top", stack.secrets.publishable)
        assert "audience" in answer.json()["degraded"]
        # There is no such version, as segment-svc says itself, and so does Redis in the end: nobody waits for it.
        segments.send_signal(signal.SIGCONT)
        store.set("ver:segment", version or 0)
        until(lambda: (sees(), *cart()) == ("for-no-buyer", 100, 409))
        # What others use is not switched off.
        found = ask("GET", "/admin/v1/segments/buyers", stack.secrets.admin)
        off = {"name": "b", "status": "inactive", "condition": condition}
        refused = ask(
            "PUT", "/admin/v1/segments/buyers", stack.secrets.admin, off, **{"if-match": found.headers["etag"]}
        )
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:footfall:problem:segment-in-use")
        assert {e["detail"] for e in refused.json()["errors"]} == {"block for-no-buyer", "cart rule no-buyer"}


def test_what_was_answered_as_switched_off_is_off_though_the_service_stops_at_that_instant(
    services: Callable[..., AbstractContextManager[Stack]],
) -> None:
    with services("stops") as stack, httpx.Client(timeout=30) as client:

        def ask(method: str, path: str, key: str, body: Any = None) -> Any:
            answer = client.request(method, stack.url + path, json=body, headers={"x-api-key": key})
            assert answer.is_success, answer.text
            return answer.json()

        def seen() -> tuple[str, list[str], int]:
            shown = ask("GET", "/v1/decisions?slots=top", stack.secrets.publishable)
            cart = ask("POST", "/v1/cart", stack.secrets.secret, {"lines": [{"id": "1", "price": 1000}]})
            names = [message["label"] for message in shown["messages"]]
            return shown["slots"]["top"]["blocks"][0]["key"], names, cart["discount"]

        def is_on(n: int) -> bool:
            return seen() == (f"b{n}", ["ten off"], 100)

        ask("POST", "/admin/v1/slots", stack.secrets.admin, {"key": "top", "title": "t", "default": WORDS})
        for n in range(TIMES):
            block = {"title": "t", "status": "live", "slots": ["top"], "content": WORDS}
            ten = {"type": "percent", "value": 10}
            rule = {"name": "n", "label": "ten off", "status": "live", "all_groups": True, "action": ten}
            ask("POST", "/admin/v1/blocks", stack.secrets.admin, {"key": f"b{n}", **block})
            ask("POST", "/admin/v1/cart-rules", stack.secrets.admin, {"key": f"r{n}", **rule})
            until(partial(is_on, n))
            stopped = []
            for service, path in (("content_svc", f"blocks/b{n}"), ("promo_svc", f"cart-rules/r{n}")):
                child = stack.children[service].popen
                assert child is not None
                ask("POST", f"/admin/v1/{path}/disable", stack.secrets.admin)
                child.send_signal(signal.SIGSTOP)
                stopped.append(child)
            time.sleep(LATE_S)
            assert seen() == ("top:default", [], 0)
            for child in stopped:
                child.send_signal(signal.SIGCONT)
