"""Every public and admin route, with something odd in one place: an answer of ours, never a fault of ours.

Every run asks the same; with FUZZ_EXAMPLES (how many examples of five requests) it asks something else each time.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes

import httpx
import pytest
from devstack.odd import ODD, places, put
from devstack.stack import Stack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.servers, pytest.mark.slow]
UNLIMITED = {f"{who}_PER_MINUTE": "1000000000" for who in ("PERSON", "BLOCK", "KEY", "BYTES")}
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
DOCUMENT = json.loads((Path(__file__).parents[2] / "docs" / "api" / "openapi.json").read_text())
CONTENT = {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": "x"}}]}}
VIEWED = {
    "events": {
        "type": "product_view", "count": {"op": "gte", "value": 1}, "window": {"last": "P7D"},
        "where": [{"field": "sku", "op": "eq", "value": "A"}],
    }
}  # fmt: skip
SEGMENT = {
    "name": "f",
    "status": "active",
    "condition": {"all": [VIEWED, {"attribute": "a", "op": "eq", "value": "b"}]},
}
SLOT = {"title": "f", "default": CONTENT}
BLOCK = {"title": "f", "status": "live", "slots": ["fuzz.top"], "audience": {"any_of": ["fuzz"]}, "content": CONTENT}
RULE = {
    "name": "f", "status": "live", "all_groups": True, "currency": "EUR", "action": {"type": "percent", "value": 10},
    "condition": {"all": [{"cart": "subtotal", "op": "gte", "value": 1}]},
    "filter": {"line": "sku", "op": "eq", "value": "A"},
}  # fmt: skip
NEAR = {"context": "utm_campaign", "op": "in", "value": ["near"]}
NEAR_SEGMENT = {
    "name": "n", "status": "active",
    "condition": {"any": [NEAR, *({**NEAR, "op": "contains", "value": f"w{n}"} for n in range(50))]},
}  # fmt: skip
NEAR_BLOCK = {**BLOCK, "slots": ["near.top"], "audience": {"any_of": ["near"]}}
NEAR_RULE = {
    "name": "n", "status": "live", "all_groups": True,
    "action": {"type": "percent", "value": 20},
}  # fmt: skip
EVENT = {"id": "1", "type": "product_view", "time": "2026-01-01T00:00:00Z", "data": {"sku": "A"}}
CART = {"lines": [{"id": "1", "sku": "A", "price": 100, "quantity": 1}], "coupons": ["TEN"], "slots": ["fuzz.top"]}


@dataclass(frozen=True)
class Ask:
    """A request that is right. `who` is the kind of key."""

    method: str
    path: str
    who: str = "admin"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


SEEN, KEY = {"if-match": '"1"'}, {"idempotency-key": "k"}
PUBLIC = [
    Ask("GET", "/v1/decisions", "publishable", {"slots": "fuzz.top", "locale": "de", "path": "/"}),
    Ask("GET", "/v1/context", "publishable", {"consent": "true", "logout": "false"}),
    Ask("POST", "/v1/events", "publishable", body={"events": [EVENT]}),
    Ask("POST", "/v1/events", "secret", body={"events": [{**EVENT, "source": "s", "subject": "customer:f"}]}),
    Ask("POST", "/v1/cart", "publishable", body=CART),
    Ask("GET", "/v1/explain", "secret", {"profile": "v:x", "slots": "fuzz.top", "region": "BY"}),
    Ask("POST", "/v1/redemptions", "secret", headers=KEY, body={"coupon": "TEN", "customer": "c"}),
    Ask("POST", f"/v1/redemptions/{uuid.UUID(int=1)}/confirm", "secret"),
    Ask("POST", f"/v1/redemptions/{uuid.UUID(int=1)}/release", "secret"),
]
ADMIN = [
    *(Ask("GET", f"/{noun}") for noun in ("segments", "blocks", "slots", "cart-rules", "backfills", "positions")),
    *(
        Ask("POST", f"/{noun}", body={"key": "fuzz-new", **body})
        for noun, body in (("segments", SEGMENT), ("slots", SLOT), ("blocks", BLOCK), ("cart-rules", RULE))
    ),
    *(
        Ask("PUT", f"/{noun}/fuzz{'.top' if noun == 'slots' else ''}", headers=SEEN, body=body)
        for noun, body in (("segments", SEGMENT), ("slots", SLOT), ("blocks", BLOCK), ("cart-rules", RULE))
    ),
    *(Ask("GET", f"/{noun}/fuzz") for noun in ("segments", "blocks", "cart-rules")),
    *(Ask("GET", f"/{noun}/fuzz/versions") for noun in ("segments", "blocks", "cart-rules")),
    *(Ask("DELETE", f"/{noun}/fuzz-new", headers=SEEN) for noun in ("segments", "blocks", "slots", "cart-rules")),
    *(Ask("POST", f"/{noun}/fuzz-new/disable") for noun in ("blocks", "cart-rules")),
    Ask("GET", "/slots/fuzz.top"),
    Ask("POST", "/segments/preview", body={"condition": SEGMENT["condition"]}),
    Ask("POST", "/segments/named", body={"keys": ["fuzz", "near", "nowhere"]}),
    Ask("GET", "/segments/fuzz/members", query={"after": "v:a", "limit": "10"}),
    Ask("GET", "/segments/fuzz/members.csv"),
    Ask("GET", "/segments/fuzz/explain", query={"profile": "v:a", "at": "1700000000000", "country": "DE"}),
    Ask("GET", "/profiles/v:a"),
    Ask("PUT", "/positions/storefront.browse.v1.none/0", body={"from": "earliest"}),
    Ask("GET", "/kills"),
    Ask("POST", "/kills", body={"kind": "block", "key": "fuzz-new"}),
    Ask("DELETE", "/kills/block/fuzz-new"),
]
MARKS = "a" + "\u0301" * 3000 + "\u0316" * 2999  # in order they are put only pair by pair
WORDS = st.one_of(
    st.sampled_from(
        ["", " ", "\0", "%", "%00", "%2f", "..", "\u202e", "é", "\U0001f600", "x" * 300, MARKS, "-1", "0", "1e9", "9" * 30, "NaN",
         "null", "[]", "{}", "'", '"', "\\", "a,b" * 30, "2026-01-01", "\r\nx: y", "true", "²", '"1"', "W/\"1\", *", "*"]
    ),
    st.text(max_size=12),
)  # fmt: skip


def hostile(n: int) -> list[Ask]:
    """What costs others something where it is not bounded; each `n` is another one, which no memory has an answer for."""
    slots, long = {"slots": f"near.top,{n}" + "x" * 232}, {"slots": [f"{n}" + "x" * 400_000]}
    return [
        Ask("GET", "/v1/decisions", "publishable", slots),
        Ask("GET", "/v1/explain", "secret", {"profile": "v:x", **slots}),
        Ask("GET", "/v1/decisions", "publishable", {"slots": "near.top", "locale": f"{n}{MARKS}"}),
        Ask("POST", "/v1/cart", "publishable", {"utm_campaign": f"{n}{MARKS}"}, body=CART),
        Ask("POST", "/v1/cart", "publishable", body={**CART, **long}),
        Ask("POST", "/v1/cart", "publishable", body={**CART, "lines": [{"id": f"{n}", "price": 10**30}]}),
    ]


@pytest.fixture(scope="module")
def shop(services: Callable[..., AbstractContextManager[Stack]]) -> Iterator[Stack]:
    # A busy machine must not turn answers into degraded ones; a loop that stands still for long does.
    with services("fuzz", extra={"gateway": {**UNLIMITED, "BUDGET_MS": "5000"}}) as stack:
        yield from published(stack)


def published(stack: Stack) -> Iterator[Stack]:
    admin = {"x-api-key": stack.secrets.admin}
    for noun, key, body in (
        ("segments", "fuzz", SEGMENT), ("slots", "fuzz.top", SLOT), ("blocks", "fuzz", BLOCK), ("cart-rules", "fuzz", RULE),
        ("segments", "near", NEAR_SEGMENT), ("slots", "near.top", SLOT), ("blocks", "near", NEAR_BLOCK),
        ("cart-rules", "near", NEAR_RULE),
    ):  # fmt: skip
        answer = httpx.post(f"{stack.url}/admin/v1/{noun}", json={"key": key, **body}, headers=admin)
        assert answer.status_code == 201, answer.text
    yield stack
    assert all(child.popen is not None and child.popen.poll() is None for child in stack.children.values())


class Neighbour:
    """Somebody honest, whom nothing of this concerns: has a segment and a block for a campaign, and a discount.

    Asks for another locale each time, so that the answer is made anew, together with those of others.
    """

    def __init__(self, shop: Stack) -> None:
        self._shop, self._asked = shop, itertools.count()
        end = time.monotonic() + 30
        with httpx.Client(timeout=20) as client:
            while True:
                self.decision, self.cart = self.ask(client)
                if b'"near"' in self.decision and b'"near"' in self.cart:
                    return
                assert time.monotonic() < end, (self.decision, self.cart)
                time.sleep(0.1)

    def ask(self, client: httpx.Client) -> tuple[bytes, bytes]:
        """A decision and a cart."""
        key, query = {"x-api-key": self._shop.secrets.publishable}, f"utm_campaign=near&locale=n{next(self._asked)}"
        decision = client.get(f"{self._shop.url}/v1/decisions?slots=near.top&{query}", headers=key)
        cart = client.post(f"{self._shop.url}/v1/cart?{query}", headers=key, json={**CART, "slots": ["near.top"]})
        assert (decision.status_code, cart.status_code) == (200, 200), (decision.text, cart.text)
        return decision.content, cart.content

    def goes_on(self, client: httpx.Client) -> None:
        """What they get is what they got before, to the byte."""
        assert self.ask(client) == (self.decision, self.cart)

    def is_shown_the_same(self, client: httpx.Client) -> None:
        """Whatever else is published meanwhile, such as another offer, what is theirs is as before."""
        for now, before in zip(self.ask(client), (self.decision, self.cart), strict=True):
            assert b'"degraded"' not in now, now
            assert json.loads(now)["slots"] == json.loads(before)["slots"]


@pytest.fixture(scope="module")
def neighbour(shop: Stack) -> Neighbour:
    return Neighbour(shop)


def cookie(shop: Stack) -> str:
    answer = httpx.get(f"{shop.url}/v1/context", headers={"x-api-key": shop.secrets.publishable})
    return "; ".join(line.split(";")[0] for line in answer.headers.get_list("set-cookie"))


@st.composite
def odd(draw: st.DrawFn, asks: list[Ask]) -> tuple[Ask, bytes | None]:
    """A request with something odd in one place; the body as bytes."""
    ask = draw(st.sampled_from(asks))
    spots = ["path", "query", "header", *(["body"] * 6 if ask.body is not None else [])]
    spot = draw(st.sampled_from(spots))
    body = None if ask.body is None else json.dumps(ask.body).encode()
    if spot == "body":
        path = draw(st.sampled_from(list(places(ask.body))))
        body = json.dumps(put(ask.body, path, draw(ODD))).encode()
        if draw(st.integers(0, 9)) == 0:
            cut = draw(st.integers(0, len(body)))
            body = body[:cut] + draw(st.binary(max_size=4))
        return ask, body
    word = draw(WORDS)
    if spot == "path":
        parts = ask.path.split("/")
        at = draw(st.integers(1, len(parts)))
        parts[at : at + draw(st.integers(0, 1))] = [quote(word, safe="/.,%" if draw(st.booleans()) else "")]
        return Ask(ask.method, "/".join(parts), ask.who, ask.query, ask.headers), body
    name = draw(st.sampled_from([*ask.query, *ask.headers, "limit", "at", "x", "utm_campaign"]))
    if spot == "query":
        return Ask(ask.method, ask.path, ask.who, {**ask.query, name: word}, ask.headers), body
    name = draw(
        st.sampled_from(
            [
                *ask.headers,
                "cookie",
                "content-type",
                "if-none-match",
                "accept-language",
                "x-fact-region",
                "x-edge-proof",
            ]
        )
    )
    return Ask(ask.method, ask.path, ask.who, ask.query, {**ask.headers, name: word}), body


def answered(shop: Stack, client: httpx.Client, ask: Ask, body: bytes | None, jar: str) -> None:
    """Send it; the answer is ours, and says so in the way errors are said here."""
    prefix = "/admin/v1" if ask.who == "admin" else ""
    raw = prefix + ask.path
    if ask.query:
        raw += "?" + "&".join(
            f"{quote(n, safe='')}={quote_from_bytes(v.encode(errors='replace'))}" for n, v in ask.query.items()
        )
    headers = [(b"x-api-key", getattr(shop.secrets, ask.who).encode()), (b"content-type", b"application/json")]
    headers += [(b"cookie", jar.encode())] if "cookie" not in ask.headers else []
    headers += [
        (n.encode(), re.sub(rb"[\x00-\x1f\x7f]", b"?", v.encode(errors="replace"))) for n, v in ask.headers.items()
    ]
    url = httpx.URL(shop.url).copy_with(raw_path=raw.encode())
    try:
        answer = client.request(ask.method, url, headers=headers, content=body)
    except httpx.LocalProtocolError:
        return  # what HTTP itself cannot carry
    said = f"{ask.method} {raw} {ask.headers} {body!r}: {answer.status_code} {answer.text[:500]}"
    assert answer.status_code < 500, said
    if answer.status_code >= 400 and ask.method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json", said
        assert "Traceback" not in answer.text, said
        assert "asyncpg" not in answer.text, said


def beside(shop: Stack, neighbour: Neighbour, asks: list[tuple[Ask, bytes | None]]) -> None:
    """Send them all at once, and the neighbour's with them."""
    jar = JAR["cookie"] = JAR.get("cookie") or cookie(shop)
    with httpx.Client(timeout=20) as client, ThreadPoolExecutor(len(asks) + 3) as pool:
        asked = [pool.submit(answered, shop, client, ask, body, jar) for ask, body in asks]
        asked += [pool.submit(neighbour.goes_on, client) for _ in range(3)]
        for each in asked:
            each.result()


quick = settings(
    max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize="FUZZ_EXAMPLES" not in os.environ
)


class TestRoutes:
    def test_every_route_of_the_document_is_asked(self) -> None:
        def shape(method: str, path: str) -> tuple[str, int, str]:
            parts = path.strip("/").split("/")
            return method.upper(), len(parts), parts[-1] if len(parts) > 3 else parts[0]

        asked = {(a.method, ("/admin/v1" if a.who == "admin" else "") + a.path) for a in (*PUBLIC, *ADMIN)}
        for path, methods in DOCUMENT["paths"].items():
            pattern = re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path) + "$")
            for method in methods:
                if method != "parameters" and "edge" not in path:
                    assert any(m == method.upper() and pattern.match(p) for m, p in asked), (method, path)

    @quick
    @given(data=st.data())
    def test_a_public_route(self, shop: Stack, neighbour: Neighbour, data: st.DataObject) -> None:
        beside(shop, neighbour, [data.draw(odd(PUBLIC)) for _ in range(5)])

    @pytest.mark.parametrize("kind", range(len(hostile(0))))
    def test_what_was_made_to_harm_others_does_not(self, shop: Stack, neighbour: Neighbour, kind: int) -> None:
        for n in range(10):
            asks = [hostile(10 * n + i)[kind] for i in range(10)]
            beside(shop, neighbour, [(ask, ask.body and json.dumps(ask.body).encode()) for ask in asks])

    @quick
    @given(data=st.data())
    def test_an_admin_route(self, shop: Stack, neighbour: Neighbour, data: st.DataObject) -> None:
        with httpx.Client(timeout=20) as client:
            for _ in range(5):
                ask, body = data.draw(odd(ADMIN))
                answered(shop, client, ask, body, "")
            neighbour.is_shown_the_same(client)

    def test_afterwards_everything_goes_on(self, shop: Stack) -> None:
        """What was accepted meanwhile is saved and live: events, carts and decisions of others are as they should be."""
        jar, key = cookie(shop), {"x-api-key": shop.secrets.publishable}
        headers = {**key, "cookie": jar}
        event = {"id": uuid.uuid4().hex, "type": "product_view", "data": {"sku": "A"}}
        answer = httpx.post(f"{shop.url}/v1/events", json={"events": [event]}, headers=headers)
        assert answer.json()["accepted"] == 1
        visitor = re.search(r"__Host-ff_vid=([^.]+)", jar)
        assert visitor is not None
        admin = {"x-api-key": shop.secrets.admin}
        end = time.monotonic() + 30
        while True:
            found = httpx.get(f"{shop.url}/admin/v1/profiles/v:{visitor[1]}", headers=admin)
            if found.status_code == 200:
                break
            assert time.monotonic() < end, found.text
            time.sleep(0.1)
        for name in ("segment_svc", "content_svc", "promo_svc", "gateway"):
            ready = httpx.get(f"http://127.0.0.1:{shop.ports[name]}/readyz")
            assert ready.status_code == 200, (name, ready.text)


JAR: dict[str, str] = {}
