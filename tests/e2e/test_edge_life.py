"""The edge as people meet it: copies outlive a dead gateway, and no end; whose pages may read; whose copies a publish takes."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from devstack import varnish as varnish_server
from devstack.stack import Secrets, Stack
from devstack.testing import need, until
from devstack.varnish import Varnish
from gateway.domain.identity import context_cookie
from gateway.domain.signing import Ring

pytestmark = [pytest.mark.servers, pytest.mark.slow]
OURS, FOREIGN = "https://shop.example", "https://elsewhere.example"
SECOND = "pk-second-website"


def words(text: str) -> dict[str, Any]:
    return {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": text}}]}}


class Shop:
    """Two websites behind one edge. Copies are fresh for a second, and may be shown for minutes."""

    def __init__(self, stack: Stack, edge: Varnish) -> None:
        self.stack, self.edge = stack, edge
        self.key = {"x-api-key": stack.secrets.publishable}
        self.admin = httpx.Client(base_url=f"{stack.url}/admin/v1", headers={"x-api-key": stack.secrets.admin})

    def make(self, noun: str, **body: Any) -> None:
        answer = self.admin.post(f"/{noun}", json=body)
        assert answer.status_code == 201, answer.text

    def ask(self, query: str, key: str = "", **headers: str) -> httpx.Response:
        sent = {**self.key, **({"x-api-key": key} if key else {}), **headers}
        return httpx.get(f"{self.edge.url}/v1/decisions?{query}", headers=sent)

    def shown(self, slot: str, **headers: str) -> str:
        """The block shown, or a status."""
        answer = self.ask(f"slots={slot}", **headers)
        return (
            answer.json()["slots"][slot]["blocks"][0]["key"] if answer.status_code == 200 else str(answer.status_code)
        )

    def context(self, cookies: dict[str, str]) -> dict[str, str]:
        answer = httpx.get(f"{self.stack.url}/v1/context", headers={**self.key, **header(cookies)})
        return cookies | dict(line.split(";")[0].split("=", 1) for line in answer.headers.get_list("set-cookie"))

    def fan(self) -> dict[str, str]:
        """Cookies of one who is in the segment, and in a context that says so."""
        cookies = self.context({})
        name, data = cookies["__Host-ff_vid"].split(".")[0], {"attributes": {"fan": "yes"}}
        time_ = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event = {
            "id": name,
            "source": "t",
            "type": "identify",
            "subject": f"visitor:{name}",
            "time": time_,
            "data": data,
        }
        server = {"x-api-key": self.stack.secrets.secret}
        sent = httpx.post(f"{self.stack.url}/v1/events", json={"events": [event]}, headers=server)
        assert sent.json()["accepted"] == 1
        url, headers = f"{self.stack.url}/v1/decisions?slots=top", {**self.key, **header(cookies)}
        until(lambda: httpx.get(url, headers=headers).json()["slots"]["top"]["blocks"][0]["key"] == "for-fans")
        return self.context(cookies)


def header(cookies: dict[str, str]) -> dict[str, str]:
    return {"cookie": "; ".join(f"{n}={v}" for n, v in cookies.items())} if cookies else {}


@pytest.fixture(scope="module")
def shop(services: Callable[..., AbstractContextManager[Stack]], state: Path) -> Iterator[Shop]:
    need(varnish_server.available())
    home = state / "life"
    home.mkdir()
    known, edge = Secrets.of(home), Varnish(home, Secrets.of(home).edge_keys())
    keys = json.loads(known.keys())
    keys[0]["origins"] = [OURS]
    digest = hashlib.sha256(SECOND.encode()).hexdigest()
    keys.append({"id": "second", "sha256": digest, "kind": "publishable", "website": "second"})
    edge.start()
    more = {"KEYS": json.dumps(keys), "SHARE_S": "2", "BUDGET_MS": "5000"}
    with services("life", edges=(edge.url,), extra={"gateway": more}) as stack:
        edge.use(stack.address)
        made = Shop(stack, edge)
        for slot in ("top", "ending", "both"):
            made.make("slots", key=slot, title=slot, default=words("default"))
        fans = {"attribute": "fan", "op": "eq", "value": "yes"}
        made.make("segments", key="fans", name="fans", status="active", condition=fans)
        made.make(
            "blocks",
            key="for-fans",
            title="f",
            status="live",
            slots=["top"],
            content=words("f"),
            audience={"any_of": ["fans"]},
        )
        until(lambda: made.admin.get("/segments/fans").json()["live_version"])
        until(lambda: made.shown("top") == "top:default" and "hit" in made.ask("slots=top").headers["cache-status"])
        yield made
        made.admin.close()
    edge.stop()


@contextmanager
def broken(port: int) -> Iterator[None]:
    """A gateway that is there and answers 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(500)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


class TestNoise:
    def test_what_nobody_looks_at_makes_no_object_and_no_order_does(self, shop: Shop) -> None:
        for query in ("slots=both,top", "slots=top,both&utm_source=x&gclid=1", "fbclid=2&slots=both%2Ctop&x=1"):
            until(lambda query=query: "hit" in shop.ask(query).headers["cache-status"], seconds=5)
        found = [shop.ask(f"slots=top,both&utm_source={n}&x{n}=1").headers["cache-status"] for n in range(20)]
        assert sum("hit" in said for said in found) >= 18, "it may be renewed meanwhile"


class TestOrigins:
    def test_a_page_of_the_key_may_read_what_is_shared_and_what_is_not_and_no_other_page_may(self, shop: Shop) -> None:
        for origin, allowed in ((OURS, OURS), (FOREIGN, None), (OURS, OURS)):
            for query in ("slots=top", "slots=nowhere-yet"):
                answer = shop.ask(query, origin=origin)
                assert answer.headers.get("access-control-allow-origin") == allowed
                assert "origin" in answer.headers["vary"].lower()
                assert "x-origins" not in answer.headers
            context = httpx.get(f"{shop.edge.url}/v1/context", headers={**shop.key, "origin": origin})
            assert context.headers.get("access-control-allow-origin") == allowed
        assert "access-control-allow-origin" not in shop.ask("slots=top", key=SECOND, origin=OURS).headers

    @pytest.mark.parametrize(("origin", "status"), [(OURS, 204), (FOREIGN, 403), ("null", 403)])
    def test_a_browser_that_asks_first_is_told(self, shop: Shop, origin: str, status: int) -> None:
        asks = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key",
        }
        answer = httpx.options(f"{shop.edge.url}/v1/events", headers=asks)
        assert answer.status_code == status
        assert (answer.headers.get("access-control-allow-origin") == origin) is (status == 204)
        if status == 204:
            assert "x-api-key" in answer.headers["access-control-allow-headers"]
            assert answer.headers["access-control-allow-credentials"] == "true"


class TestWebsites:
    def test_a_publish_leaves_the_copies_of_other_websites_alone(self, shop: Shop) -> None:
        for n in range(3):
            until(lambda: "edge; hit" in shop.ask("slots=both", key=SECOND).headers["cache-status"], seconds=10)
            before = shop.ask("slots=both", key=SECOND).headers
            shop.make(
                "blocks",
                key=f"main-{n}",
                title="m",
                status="live",
                slots=["both"],
                content=words("m"),
                websites=["main"],
            )
            until(lambda n=n: shop.shown("both") == f"main-{n}", seconds=5)
            after = shop.ask("slots=both", key=SECOND).headers
            assert after["etag"] == before["etag"]
            shop.admin.post("/kills", json={"kind": "block", "key": f"main-{n}"}).raise_for_status()


class TestMany:
    def test_fifty_cold_visitors_of_one_page_wait_for_no_other(self, shop: Shop) -> None:
        people = [shop.context({}) for _ in range(50)]
        with ThreadPoolExecutor(50) as pool:
            began = time.monotonic()
            found = list(pool.map(lambda c: shop.shown("top", **header(c)), people))
        assert set(found) == {"top:default"}
        assert time.monotonic() - began < 20

    @pytest.mark.parametrize("count", [60, 200])
    def test_who_is_in_very_many_segments_is_answered_as_anybody(self, shop: Shop, count: int) -> None:
        fan = shop.fan()
        codes = fan["__Host-ff_ctx"].split("|")[0] + "".join(f"s{n}." for n in range(1000, 999 + count))
        ring = Ring(f"1:{shop.stack.secrets.context}")
        version = int(fan["__Host-ff_ctx"].split("|")[2])
        cookie = context_cookie(ring, codes, int(time.time()) + 60, fan["__Host-ff_vid"], version=version)
        browser = {
            "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
            "accept": "application/json, text/plain, */*", "accept-language": "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7",
            "referer": f"{OURS}/shoes/running?colour=blue", "dnt": "1", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors",
            "sec-fetch-dest": "empty", "sec-ch-ua": '"Chromium";v="140", "Not=A?Brand";v="24"', "sec-ch-ua-mobile": "?0",
            "sec-ch-ua-platform": '"Linux"', "x-shop-trace": "t" * 64, "priority": "u=1, i",
        }  # fmt: skip
        sent = {
            **browser,
            **header({**fan, "__Host-ff_ctx": cookie, "_ga": "GA1.1.1234567890.1234567890", "cart": "c" * 400}),
        }
        for _ in range(3):
            answer = shop.ask("slots=top", **sent)
            assert answer.status_code == 200
            assert answer.json()["slots"]["top"]["blocks"][0]["key"] == "for-fans"
        until(lambda: "hit" in shop.ask("slots=top", **sent).headers["cache-status"], seconds=10)


class TestLife:
    """Last: the gateway does not come back."""

    def test_copies_outlive_a_gateway_that_is_dead_and_one_that_is_broken_but_no_end(self, shop: Shop) -> None:
        ends = int(time.time() * 1000) + 25_000
        shop.make("blocks", key="sale", title="s", status="live", slots=["ending"], content=words("s"), ends_at=ends)
        fan = shop.fan()
        until(
            lambda: (
                shop.shown("top", **header(fan)) == "for-fans"
                and "hit" in shop.ask("slots=top", **header(fan)).headers["cache-status"]
            ),
            seconds=10,
        )
        until(
            lambda: shop.shown("ending") == "sale" and "hit" in shop.ask("slots=ending").headers["cache-status"],
            seconds=10,
        )
        shop.shown("top")
        shop.stack.children["gateway"].kill()
        stale = set()
        while (now := int(time.time() * 1000)) < ends + 16_000:  # past the half minute in which copies are renewed
            assert shop.shown("top") == "top:default"
            assert shop.shown("top", **header(fan)) == "for-fans"
            stale.add(shop.ask("slots=top").headers["cache-status"])
            if (seen := shop.shown("ending")) != "503":
                assert (seen, now < ends) == ("sale", True)
            time.sleep(0.5)
        assert "edge; hit; detail=stale" in stale
        assert shop.shown("ending") == "503"
        lost = shop.ask("slots=ending")
        assert (lost.headers["cache-control"], lost.json()["type"]) == (
            "no-store",
            "urn:footfall:problem:service-unavailable",
        )
        with broken(shop.stack.ports["gateway"]):
            for _ in range(10):
                assert (shop.shown("top"), shop.shown("top", **header(fan))) == ("top:default", "for-fans")
                time.sleep(0.2)
