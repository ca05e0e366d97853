"""The only door, on real servers: who may say what, what bad input gets, and what is answered while parts are away."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from devstack.servers import Postgres, Valkey
from devstack.stack import Stack
from devstack.testing import until

pytestmark = [pytest.mark.servers, pytest.mark.slow]
PER_MINUTE = 40
VIEW = {"id": "1", "type": "product_view", "data": {"sku": "A"}}
ORDER = {"id": "2", "type": "order_placed", "data": {"order_id": "1", "grand_total": {"amount": 1, "currency": "EUR"}}}


def words(text: str) -> dict[str, Any]:
    return {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": text}}]}}


@pytest.fixture(scope="module")
def redis(state: Path) -> Iterator[Valkey]:
    server = Valkey(state / "door")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shop(postgres: Postgres, redis: Valkey, state: Path) -> Iterator[Stack]:
    """Services of their own, without Kafka, whose parts the tests may end."""
    import asyncio

    import asyncpg

    async def prepare() -> None:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("CREATE DATABASE door")
        await connection.close()

    asyncio.run(prepare())
    database = postgres.url.removesuffix("postgres") + "door"
    stack = Stack(state / "door", database, redis.url, extra={"gateway": {"PERSON_PER_MINUTE": str(PER_MINUTE)}})
    try:
        stack.start()
        with httpx.Client(base_url=f"{stack.url}/admin/v1", headers={"x-api-key": stack.secrets.admin}) as admin:
            publish(admin)
        yield stack
    finally:
        stack.stop()


def publish(admin: httpx.Client) -> None:
    """Viewers and Bavarians see a block of their own; a cart rule is for Bavarians."""
    quiet = {"key": "quiet", "title": "Nobody asks for it while all is well", "default": words("quiet")}
    assert admin.post("/slots", json=quiet).status_code == 201
    viewers = {"events": {"type": "product_view", "count": {"op": "gte", "value": 1}}}
    for key, condition in (("viewers", viewers), ("bavaria", {"context": "region", "op": "eq", "value": "BY"})):
        body = {"key": key, "name": key, "status": "active", "condition": condition}
        assert admin.post("/segments", json=body).status_code == 201
        block = {"key": f"for-{key}", "title": key, "status": "live", "slots": ["top"], "content": words(key)}
        if key == "viewers":
            assert admin.post("/slots", json={"key": "top", "title": "Top", "default": words("all")}).status_code == 201
        answer = admin.post("/blocks", json={**block, "audience": {"any_of": [key]}})
        assert answer.status_code == 201, answer.text
    rule = {
        "key": "ten", "name": "Ten", "status": "live", "all_groups": True, "segments": {"any_of": ["bavaria"]},
        "action": {"type": "percent", "value": 10},
    }  # fmt: skip
    answer = admin.post("/cart-rules", json=rule)
    assert answer.status_code == 201, answer.text


def visitor(shop: Stack) -> dict[str, str]:
    """Headers of somebody with a fresh visitor cookie."""
    key = {"x-api-key": shop.secrets.publishable}
    answer = httpx.get(f"{shop.url}/v1/context", headers=key)
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("__Host-ff_vid"))
    return {**key, "cookie": cookie.split(";")[0]}


def shown(shop: Stack, headers: dict[str, str]) -> dict[str, Any]:
    answer = httpx.get(f"{shop.url}/v1/decisions?slots=top", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestDoor:
    @pytest.mark.parametrize(
        ("method", "path", "who", "status"),
        [
            ("GET", "/v1/decisions?slots=top", "", 401),
            ("GET", "/v1/decisions?slots=top", "made-up", 401),
            ("GET", "/v1/decisions?slots=top", "admin", 403),
            ("GET", "/admin/v1/segments", "publishable", 403),
            ("GET", "/admin/v1/segments", "secret", 403),
            ("GET", "/admin/v1/%2e%2e/v1/segments", "admin", 404),
            ("GET", "/admin/v1/nonsense", "admin", 404),
            ("GET", "/v1/explain?profile=v:a&slots=top", "publishable", 403),
            ("GET", "/v1/decisions/", "publishable", 404),
            ("GET", "/v1%2fdecisions?slots=top", "publishable", 404),
            ("GET", "/v1/select-many", "publishable", 404),
            ("POST", "/v1/decisions?slots=top", "publishable", 405),
            ("GET", "/v1/decisions", "publishable", 400),
            ("GET", "/v1/decisions?slots=top&x=" + "y" * 3000, "publishable", 414),
            ("GET", "/v1/decisions?slots=top" + "&a=1" * 60, "publishable", 400),
            ("GET", "/v1/decisions?slots=top," + "x" * 64, "publishable", 400),
            ("GET", "/v1/explain?profile=v:a&slots=" + "x" * 64, "secret", 422),
            ("GET", "/v1/context?x=" + "y" * 3000, "publishable", 414),
            ("GET", "/v1/context?x=1" + "&a=1" * 60, "publishable", 400),
            ("POST", "/v1/cart?utm_campaign=" + "y" * 3000, "publishable", 414),
            ("GET", "/admin/v1/segments?x=" + "y" * 3000, "admin", 414),
            ("GET", "/admin/v1/segments/%00", "admin", 404),
            ("GET", "/v1/explain?profile=%00&slots=top", "secret", 400),
            ("GET", "/v1/explain?slots=top", "secret", 422),
        ],
    )
    def test_a_stranger_and_an_odd_path_get_a_status_and_no_hint(
        self, shop: Stack, method: str, path: str, who: str, status: int
    ) -> None:
        key = getattr(shop.secrets, who, who)
        url = httpx.URL(shop.url).copy_with(raw_path=path.encode())
        answer = httpx.request(method, url, headers={"x-api-key": key})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(answer.json()) <= {"type", "title", "status", "errors"}
        assert "server" not in answer.headers

    def test_a_customer_is_found_under_exactly_the_name_it_has(self, shop: Stack) -> None:
        server, admin = {"x-api-key": shop.secrets.secret}, {"x-api-key": shop.secrets.admin}
        names = ["x?b", "x%41", "xA", "x/y", "x#z", "ü", "a b", "..", "x%2Fy"]
        events = [
            {**VIEW, "id": f"n{i}", "source": "names", "subject": f"customer:{name}", "time": "2026-01-01T00:00:00Z"}
            for i, name in enumerate(names)
        ]
        assert httpx.post(f"{shop.url}/v1/events", json={"events": events}, headers=server).json()["accepted"] == 9
        for name in names:
            path = f"/admin/v1/profiles/{quote(f'c:{name}', safe='')}"
            until(lambda path=path: httpx.get(shop.url + path, headers=admin).status_code == 200)
            assert httpx.get(shop.url + path, headers=admin).json()["profile"] == f"c:{name}"
        for path in ("/admin/v1/profiles/c:nobody%3Fb", "/admin/v1/segments/viewers%2Fmembers", "/admin/v1/profiles/"):
            url = httpx.URL(shop.url).copy_with(raw_path=path.encode())
            assert httpx.get(url, headers=admin).status_code == 404

    @pytest.mark.parametrize(
        "route", ["/v1/decisions?slots=top", "/v1/context", "/v1/events", "/v1/cart", "/v1/explain"]
    )
    @pytest.mark.parametrize(
        "name", ["cookie", "x-api-key", "authorization", "if-none-match", "x-front-key", "x-edge-proof", "x-edge-key"]
    )
    def test_bytes_outside_ascii_in_a_header_are_never_our_fault(self, shop: Stack, route: str, name: str) -> None:
        genuine = visitor(shop)["cookie"].encode()
        odd = genuine[:-1] + b"\xe9" if name == "cookie" else b"Bearer \xff\xe9"
        headers = [(b"x-api-key", shop.secrets.publishable.encode()), (name.encode(), odd)]
        method = "POST" if route in ("/v1/events", "/v1/cart") else "GET"
        answer = httpx.request(method, shop.url + route, headers=headers, content=b'{"events": [{}], "lines": []}')
        assert answer.status_code < 500, answer.text

    @pytest.mark.parametrize("name", ["if-match", "idempotency-key", "content-type"])
    def test_nor_in_one_that_a_merchants_request_hands_on(self, shop: Stack, name: str) -> None:
        for value in (b"\xff", "é²".encode(), b'"\xb2"'):
            headers = [(b"x-api-key", shop.secrets.admin.encode()), (name.encode(), value)]
            for method, path in (
                ("PUT", "/segments/viewers"),
                ("POST", "/blocks"),
                ("DELETE", "/blocks/for-viewers"),
            ):
                answer = httpx.request(method, f"{shop.url}/admin/v1{path}", headers=headers, content=b"{}")
                assert 400 <= answer.status_code < 500, answer.text

    @pytest.mark.parametrize("blank", [b" ", b"\t", b" \t "])
    def test_blanks_around_a_header_say_nothing(self, shop: Stack, blank: bytes) -> None:
        lines = [b"GET /admin/v1/blocks/nowhere HTTP/1.1", b"host: localhost", b"connection: close"]
        lines += [b"x-api-key: " + shop.secrets.admin.encode(), b"if-match:" + blank + b'"1"' + blank, b"", b""]
        with socket.create_connection(("127.0.0.1", shop.ports["gateway"])) as connection:
            connection.sendall(b"\r\n".join(lines))
            assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 404 ")

    def test_a_browser_speaks_for_its_own_cookie_and_never_of_orders(self, shop: Stack) -> None:
        me, other = visitor(shop), visitor(shop)
        lies = [{**VIEW, "subject": "customer:7", "source": "shop", "website": "elsewhere"}, ORDER]
        answer = httpx.post(f"{shop.url}/v1/events", json={"events": lies}, headers=me).json()
        assert answer["accepted"] == 1
        assert [(r["pointer"], r["reason"]) for r in answer["rejected"]] == [("/events/1", "not-allowed")]
        until(lambda: shown(shop, me)["slots"]["top"]["blocks"][0]["key"] == "for-viewers")
        assert shown(shop, other)["slots"]["top"]["blocks"][0]["key"] == "top:default"
        admin = {"x-api-key": shop.secrets.admin}
        assert httpx.get(f"{shop.url}/admin/v1/profiles/c:7", headers=admin).status_code == 404
        forged = {**me, "cookie": me["cookie"][:-4] + "0000"}
        answer = httpx.post(f"{shop.url}/v1/events", json={"events": [VIEW]}, headers=forged).json()
        assert [r["reason"] for r in answer["rejected"]] == ["no-visitor"]

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"{", 400),
            (b"[" * 100_000, 400),
            (b"[]", 422),
            (b'{"events": 3}', 422),
            (b'{"events": []}', 422),
            (b'{"events": [' + b"1," * 600 + b"1]}", 422),
            (b" " * 1_100_000, 413),
            (b'{"events": [{"id": "\\ud800", "type": "product_view", "data": {"sku": "\\ud800"}}]}', 400),
            (b'{"events": [{"id": "z", "type": "product_view", "data": {"sku": "\\u0000"}}]}', 202),
            (b'{"events": [{"id": "n", "type": "custom", "data": {"name": "x", "props": {"v": NaN}}}]}', 400),
            (b'{"events": [{"id": "d", "type": "custom", "data": {"name": "x", "props": ' + b'{"a":' * 600, 400),
            (b'{"events": [{"id": [], "type": [], "data": []}, {"type": {}}, null, 1, "x", []]}', 202),
        ],
    )
    def test_a_bad_batch_gets_a_problem_or_names_what_is_wrong(self, shop: Stack, body: bytes, status: int) -> None:
        headers = {"x-api-key": shop.secrets.secret, "content-type": "application/json"}
        answer = httpx.post(f"{shop.url}/v1/events", content=body, headers=headers)
        assert answer.status_code == status, answer.text
        if status == 202:
            assert answer.json()["accepted"] + len(answer.json()["rejected"]) == body.count(b'"data"') + (
                5 if b"null" in body else 0
            )

    @pytest.mark.parametrize(
        ("value", "status"),
        [
            ("NaN", 400),
            ("1e400", 400),
            ('"\\ud800"', 400),
            ('"\\u0000"', 422),
            ("[" * 900, 400),
            ("[" * 100 + "]" * 100, 422),
        ],
    )
    def test_what_cannot_be_stored_is_refused_for_a_merchant_too(self, shop: Stack, value: str, status: int) -> None:
        body = f'{{"key": "x", "name": "x", "condition": {{"attribute": "a", "op": "eq", "value": {value}}}}}'
        for path, key in (("/admin/v1/segments", shop.secrets.admin), ("/v1/cart", shop.secrets.publishable)):
            headers = {"x-api-key": key, "content-type": "application/json"}
            answer = httpx.post(shop.url + path, content=body, headers=headers)
            assert answer.status_code == status, answer.text
            if status == 422:
                error = answer.json()["errors"][0]
                assert error["pointer"].startswith("/condition/value")
                assert error["detail"] in ("has a NUL character", "goes deeper than 64 levels")

    @pytest.mark.parametrize("slots", ["3", "-1", "true", '"top"', "[1]", "{}", '[""]', f'["{"x" * 64}"]'])
    def test_slots_of_a_cart_are_a_list_of_keys(self, shop: Stack, slots: str) -> None:
        body = f'{{"lines": [{{"id": "1", "price": 100}}], "slots": {slots}}}'
        headers = {"x-api-key": shop.secrets.publishable, "content-type": "application/json"}
        answer = httpx.post(f"{shop.url}/v1/cart", content=body, headers=headers)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/slots"

    def test_what_depends_on_the_request_counts_in_the_cart_too(self, shop: Stack) -> None:
        cart = {"lines": [{"id": "1", "sku": "A", "price": 1000, "quantity": 2}], "slots": ["top"]}
        for region, key, total, block in (
            ("BY", shop.secrets.front, 1800, "for-bavaria"),
            ("HH", shop.secrets.front, 2000, "top:default"),
            ("BY", shop.secrets.front[:-1], 2000, "top:default"),
        ):
            headers = {**visitor(shop), "x-fact-region": region, "x-front-key": key}
            found = httpx.post(f"{shop.url}/v1/cart", json=cart, headers=headers).json()
            assert sum(line["final"] for line in found["lines"]) == total, found
            assert found["slots"]["top"]["blocks"][0]["key"] == block

    def test_a_slot_that_is_nowhere_is_empty_and_changes_nothing_else(self, shop: Stack) -> None:
        me = visitor(shop)
        plain = httpx.get(f"{shop.url}/v1/decisions?slots=top", headers=me)
        both = httpx.get(f"{shop.url}/v1/decisions?slots=nowhere,top,%0d%0aX", headers=me)
        empty = {"fallback": True, "blocks": []}
        assert both.json()["slots"] == {"\r\nX": empty, "nowhere": empty, **plain.json()["slots"]}
        assert {**both.json(), "slots": 0, "decision_id": 0} == {**plain.json(), "slots": 0, "decision_id": 0}
        assert both.headers["etag"] != plain.headers["etag"]
        assert both.headers["vary"] == plain.headers["vary"]

    def test_who_asks_too_much_is_refused_for_a_while_and_silences_nobody_else(self, shop: Stack) -> None:
        me = visitor(shop)
        answers = [
            httpx.post(f"{shop.url}/v1/events", json={"events": [VIEW]}, headers=me) for _ in range(2 * PER_MINUTE + 2)
        ]
        refused = [a for a in answers if a.status_code == 429]
        assert refused
        assert {a.status_code for a in answers} == {202, 429}
        assert 0 < int(refused[0].headers["retry-after"]) <= 60
        other = httpx.post(f"{shop.url}/v1/events", json={"events": [VIEW]}, headers=visitor(shop))
        assert other.status_code == 202


class TestDegraded:
    """In this order: each ends one more part."""

    def test_without_promotions_a_cart_keeps_its_prices_and_says_so(self, shop: Stack) -> None:
        cart = {
            "lines": [{"id": "1", "sku": "A", "price": 1000, "quantity": 2}, {"id": "2", "price": 5}],
            "shipping": 490, "currency": "CHF", "slots": ["top"],
        }  # fmt: skip
        headers = {**visitor(shop), "x-fact-region": "HH", "x-front-key": shop.secrets.front}
        before = httpx.post(f"{shop.url}/v1/cart", json=cart, headers=headers).json()
        shop.children["promo_svc"].kill()
        found = httpx.post(f"{shop.url}/v1/cart", json=cart, headers=headers).json()
        assert found.pop("degraded") == ["promotions"]
        assert before["grand_total"] == 2495
        of_rules = {"version", "membership_version"}
        assert found == {n: value for n, value in before.items() if n not in of_rules}

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"lines": 7}, "/lines"),
            ({"lines": [{"id": "1", "price": "bogus"}]}, "/lines/0/price"),
            ({}, "/lines"),
            *(({"lines": [], "currency": code}, "/currency") for code in ("XXQ", "XXX", "eur")),
        ],
    )
    def test_without_promotions_what_is_no_cart_is_refused_all_the_same(
        self, shop: Stack, body: dict[str, Any], pointer: str
    ) -> None:
        answer = httpx.post(f"{shop.url}/v1/cart", json=body, headers=visitor(shop))
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)

    def test_without_content_what_was_known_is_shown_and_the_rest_falls_back(self, shop: Stack) -> None:
        shown(shop, visitor(shop))
        shop.children["content_svc"].kill()
        assert shown(shop, visitor(shop))["slots"]["top"]["blocks"][0]["key"] == "top:default"
        answer = httpx.get(f"{shop.url}/v1/decisions?slots=quiet", headers=visitor(shop))
        assert answer.json()["degraded"] == ["content", "promotions"]
        quiet = answer.json()["slots"]["quiet"]
        assert (quiet["fallback"], [block["key"] for block in quiet["blocks"]]) == (True, ["quiet:default"])

    def test_without_redis_everybody_is_a_stranger_and_still_answered(self, shop: Stack, redis: Valkey) -> None:
        me = visitor(shop)
        redis.stop()
        began = time.monotonic()
        found = shown(shop, me)
        assert "audience" in found["degraded"]
        assert time.monotonic() - began < 30  # an answer at all, not a hang
        cart = {"lines": [{"id": "1", "price": 100}], "slots": ["quiet"]}
        for asked in (cart, {"lines": cart["lines"]}):
            answer = httpx.post(f"{shop.url}/v1/cart", json=asked, headers=me)
            assert {"audience", "promotions"} <= set(answer.json()["degraded"])
            assert ("content" in answer.json()["degraded"]) == ("slots" in asked)
        context = httpx.get(f"{shop.url}/v1/context", headers=me)
        assert (context.status_code, context.headers.get_list("set-cookie")) == (200, [])
        assert httpx.get(f"{shop.url}/healthz").status_code == 200
