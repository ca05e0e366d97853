"""The edge as people meet it: copies outlive a dead gateway, and no end; whose pages may read; whose copies a publish takes."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from devstack.stack import Secrets
from devstack.testing import until
from gateway.domain.identity import context_cookie
from gateway.domain.signing import Ring

from tests.e2e.shop import Services, Shop, behind_edge, header, stays

pytestmark = [pytest.mark.servers, pytest.mark.slow]
OURS, FOREIGN = "https://shop.example", "https://elsewhere.example"
SECOND = "pk-second-website"
SHARE_S = 2
OTHER = {"x-api-key": SECOND}
COUNTED = threading.Lock()


@pytest.fixture(scope="module")
def shop(services: Services, state: Path) -> Iterator[Shop]:
    """Two websites behind one edge. Copies are fresh for two seconds, and may be shown for minutes."""
    home = state / "life"
    home.mkdir()
    keys = json.loads(Secrets.of(home).keys())
    keys[0]["origins"] = [OURS]
    digest = hashlib.sha256(SECOND.encode()).hexdigest()
    keys.append({"id": "second", "sha256": digest, "kind": "publishable", "website": "second"})
    with behind_edge(services, home, KEYS=json.dumps(keys), SHARE_S=str(SHARE_S)) as shop:
        for slot in ("top", "ending", "both"):
            shop.slot(slot)
        shop.segment("fan")
        shop.block("for-fans", "top", any_of=["fan"])
        until(lambda: shop.shown("top") == "top:default" and stays(lambda: shop.hits("slots=top")))
        yield shop


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


class Late(ThreadingHTTPServer):
    """Before the gateway, whose decisions are slow; counts how many are asked for at the same time."""

    gateway: httpx.Client
    now = most = 0

    class Handler(BaseHTTPRequestHandler):
        server: Late

        def do_GET(self) -> None:
            """Ask the gateway."""
            if self.path == "/healthz":
                self.send_response(200)
                self.end_headers()
                return
            with COUNTED:
                self.server.now += 1
                self.server.most = max(self.server.most, self.server.now)
            time.sleep(1)
            found = self.server.gateway.get(self.path, headers=dict(self.headers))
            with COUNTED:
                self.server.now -= 1
            self.send_response(found.status_code)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.content)


@contextmanager
def late(shop: Shop) -> Iterator[Late]:
    """A gateway that takes longer than what is kept may be on its way."""
    with httpx.Client(base_url=shop.stack.url) as client, Late(("127.0.0.1", 0), Late.Handler) as server:
        server.gateway = client
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shop.edge.use(f"127.0.0.1:{server.server_port}")
        try:
            yield server
        finally:
            shop.edge.use(shop.stack.address)
            server.shutdown()


class TestNoise:
    def test_what_nobody_looks_at_makes_no_object_and_no_order_does(self, shop: Shop) -> None:
        for query in ("slots=both,top", "slots=top,both&utm_source=x&gclid=1", "fbclid=2&slots=both%2Ctop&x=1"):
            until(lambda query=query: shop.hits(query), seconds=5)
        began_s = time.monotonic()
        found = [shop.hits(f"slots=top,both&utm_source={n}&x{n}=1") for n in range(20)]
        renewed = 1 + (time.monotonic() - began_s) / SHARE_S
        assert found.count(False) <= renewed, "it is one object, which is renewed once in a while"


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
        assert "access-control-allow-origin" not in shop.ask("slots=top", **OTHER, origin=OURS).headers

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
            until(lambda: "edge; hit" in shop.ask("slots=both", **OTHER).headers["cache-status"], seconds=10)
            before = shop.ask("slots=both", **OTHER).headers
            shop.block(f"main-{n}", "both", more={"websites": ["main"]})
            until(lambda n=n: shop.shown("both") == f"main-{n}", seconds=5)
            after = shop.ask("slots=both", **OTHER).headers
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
        fan = shop.person("fan")
        codes = fan["__Host-ff_ctx"].split("|")[0] + "".join(f"s{n}." for n in range(1000, 999 + count))
        ring = Ring(f"1:{shop.stack.secrets.context}")
        version = int(fan["__Host-ff_ctx"].split("|")[2])
        cookie = context_cookie(
            ring, codes, int(time.time()) + 60, fan["__Host-ff_vid"], shop.key["x-api-key"], version=version
        )
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
        until(lambda: shop.hits("slots=top", **sent), seconds=10)


class TestSlow:
    def test_who_waits_for_what_is_not_kept_waits_for_nobody_else(self, shop: Shop) -> None:
        slots = ("slow", "slower")
        for slot in slots:
            shop.slot(slot)
        with late(shop) as asked:
            for slot in slots:  # cold: one goes first, and what comes is too old to be kept
                with ThreadPoolExecutor(8) as pool:
                    found = list(pool.map(lambda _, slot=slot: shop.shown(slot), range(8)))
                assert set(found) == {f"{slot}:default"}
                assert asked.most > 3, "all but the first ask at the same time"
                asked.most = 0
        until(lambda: shop.hits("slots=top"))


class TestLife:
    """Last: the gateway does not come back."""

    def test_copies_outlive_a_gateway_that_is_dead_and_one_that_is_broken_but_no_end(self, shop: Shop) -> None:
        ends = int(time.time() * 1000) + 25_000
        shop.block("sale", "ending", more={"ends_at": ends})
        fan = shop.person("fan")
        until(
            lambda: shop.shown("top", **header(fan)) == "for-fans" and shop.hits("slots=top", **header(fan)),
            seconds=10,
        )
        until(
            lambda: shop.shown("ending") == "sale" and shop.hits("slots=ending"),
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
