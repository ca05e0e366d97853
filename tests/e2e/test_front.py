"""The front before the edge: nobody's pace is anybody else's, what the edge is told is the front's. Real nginx, real Varnish."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from devstack.front import CONF, Front
from devstack.testing import until
from devstack.varnish import Varnish

from tests.e2e.shop import Services, Shop, behind_edge, header, stays

pytestmark = [pytest.mark.servers, pytest.mark.slow]
FEW = ("thread_pool_min=5", "thread_pool_max=15")  # of which Varnish has two
MANY, REQUESTS, BODIES = 120, 200, 50  # more than its threads; what one house may have at once, as front.conf
WATCHED_S, SOON_S, HIT = 6.0, 2.0, "edge; hit"
LARGE = [f"large-{n}" for n in range(3)]  # a page larger than what nginx keeps of an answer in memory
CART = {"lines": [{"id": "1", "price": 1000}]}
OWN = {"connection", "transfer-encoding", "server", "date", "age"}  # of a hop, of an instant
TOLD = """vcl 4.1;
backend none none;
sub vcl_recv { return (synth(200)); }
sub vcl_synth {
    set resp.http.told-address = req.http.X-Fact-Address;
    set resp.http.told-key = req.http.X-Front-Key;
    set resp.http.told-facts = req.http.X-Fact-Country + req.http.X-Fact-Region + req.http.X-Fact-City + req.http.X-Fact-Device;
    set resp.http.told-purge = req.http.X-Purge-Key;
    set resp.http.told-url = req.url;
    set resp.http.told-host = req.http.Host;
    set resp.http.told-connection = req.http.Connection;
    return (deliver);
}
"""


@pytest.fixture(scope="module")
def shop(services: Services, state: Path) -> Iterator[Shop]:
    with behind_edge(services, state / "fronted", *FEW) as shop:
        shop.slot("top")
        texts = [{"id": f"t{n}", "type": "heading", "props": {"text": "x" * 2000}} for n in range(25)]
        long = {"*": {"schemaVersion": 1, "blocks": texts}}
        for slot in LARGE:
            shop.make("slots", slot, title=slot, default=long)
        until(lambda: all(stays(partial(shop.hits, f"slots={s}")) for s in ("top", ",".join(LARGE))))
        yield shop


@pytest.fixture(scope="module")
def outside(shop: Shop, front: Callable[[str, str], Front]) -> str:
    """Where the world meets it."""
    return front(shop.edge.url.removeprefix("http://"), shop.stack.secrets.front).url


def head(shop: Shop, method: str, path: str, *more: str) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "host: localhost", f"x-api-key: {shop.key['x-api-key']}", *more, "", "")
    return "\r\n".join(lines).encode()


def drips(shop: Shop, method: str = "POST") -> tuple[bytes, bytes]:
    """A request, and what comes of it each second."""
    return head(shop, method, "/v1/cart", "content-type: application/json", "content-length: 1000000"), b" "


def gluts(shop: Shop) -> tuple[bytes, bytes]:
    """Requests, and as many more each second: their answers, 10 MB, fill whatever holds what nobody takes."""
    many = head(shop, "GET", f"/v1/decisions?slots={','.join(LARGE)}") * 100
    return many, many


@contextmanager
def crowd(url: str, first: bytes, then: bytes, count: int, houses: int = 4) -> Iterator[list[socket.socket]]:
    """So many connections of so few addresses, that take nothing."""
    sockets, ends = list[socket.socket](), threading.Event()
    port = httpx.URL(url).port
    for n in range(count):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        one.bind((f"127.0.0.{66 + n % houses}", 0))
        one.connect(("127.0.0.1", port))
        one.setblocking(False)
        sockets.append(one)

    def keep_on() -> None:
        left = [first] * count
        while not ends.is_set():
            for n, one in enumerate(sockets):
                with suppress(OSError):  # it was ended, or takes no more
                    left[n] = left[n][one.send(left[n]) :] or then
            ends.wait(1)

    going = threading.Thread(target=keep_on)
    going.start()
    try:
        yield sockets
    finally:
        ends.set()
        going.join()
        for one in sockets:
            one.close()


def page(shop: Shop, url: str) -> str:
    """Where a page comes from that there is a copy of, when it is answered soon, to somebody who comes anew; else why not."""
    try:
        answer = httpx.get(f"{url}/v1/decisions?slots=top", headers=shop.key, timeout=SOON_S)
    except httpx.TransportError as error:
        return repr(error)
    return answer.headers["cache-status"] if answer.status_code == 200 else answer.text


def watched(shop: Shop, url: str) -> list[str]:
    """What such a page came to, for a while."""
    ends, found = time.monotonic() + WATCHED_S, list[str]()
    while time.monotonic() < ends:
        found.append(page(shop, url))
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("attack", [drips, gluts])
def test_whoever_sends_or_takes_slowly_keeps_nobody_waiting(
    shop: Shop, outside: str, attack: Callable[..., Any]
) -> None:
    until(lambda: page(shop, outside) == HIT)
    with crowd(outside, *attack(shop), MANY):
        found = watched(shop, outside)
    assert len(found) > WATCHED_S / 0.5
    assert set(found) == {HIT}


@pytest.mark.parametrize("attack", [drips, gluts])
def test_straight_at_the_edge_they_would(shop: Shop, attack: Callable[..., Any]) -> None:
    until(lambda: page(shop, shop.edge.url) == HIT)
    with crowd(shop.edge.url, *attack(shop), MANY):
        time.sleep(1)
        assert set(watched(shop, shop.edge.url)) - {HIT}
    until(lambda: page(shop, shop.edge.url) == HIT)


def test_the_edge_is_told_what_the_front_saw_and_nothing_a_browser_says_of_itself(
    state: Path, front: Callable[[str, str], Front]
) -> None:
    home, path = state / "told", "/v1//a/./%2f/../x?b&&c=%41"
    home.mkdir()
    (home / "told.vcl").write_text(TOLD)
    edge = Varnish(home, {})
    edge.start()
    try:
        edge.use("127.0.0.1:1", home / "told.vcl")
        said = {f"x-fact-{name}": "DE" for name in ("country", "region", "city", "device")}
        said |= {
            "x-fact-address": "203.0.113.9",
            "x-front-key": "k" * 32,
            "x-purge-key": "p",
            "connection": "x-front-key",
        }
        port = front(edge.url.removeprefix("http://"), "f" * 32).port
        asked = HTTPConnection("127.0.0.1", port, source_address=("127.0.0.9", 0))
        asked.request("GET", path, headers=said)
        heard = asked.getresponse().getheaders()
        asked.close()
    finally:
        edge.stop()
    told = {name.removeprefix("told-"): text for name, text in heard if name.startswith("told-") and text}
    assert told == {"address": "127.0.0.9", "key": "f" * 32, "url": path, "host": f"127.0.0.1:{port}"}


def test_who_is_where_is_not_for_browsers_to_say_nor_what_is_forgotten(shop: Shop, outside: str) -> None:
    shop.slot("where")
    shop.segment("bavarians", {"context": "country", "op": "eq", "value": "BY"})
    shop.block("beer", "where", any_of=["bavarians"])
    there = {"x-front-key": shop.stack.secrets.front, "x-fact-country": "BY"}
    until(lambda: shop.sees("where", **there) == "beer")
    seen = httpx.get(f"{outside}/v1/decisions?slots=where", headers={**shop.key, **there}).json()["slots"]["where"]
    assert seen["blocks"][0]["key"] == "where:default"
    purge = {"x-purge-key": shop.stack.secrets.purge, "xkey-purge": "main:slot:top"}
    answer = httpx.request("PURGE", outside, headers=purge)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:footfall:problem:not-found")
    assert page(shop, outside) == HIT
    assert httpx.request("PURGE", shop.edge.url, headers=purge).status_code == 200


@pytest.mark.parametrize(("method", "most"), [("POST", BODIES), ("GET", REQUESTS)])
def test_what_one_house_may_have_at_once_is_bounded_as_long_as_it_has_it(
    shop: Shop, outside: str, method: str, most: int
) -> None:
    def post(address: str) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(local_address=address), headers=shop.key) as client:
            return client.request(method, f"{outside}/v1/cart", json=CART)

    with crowd(outside, *drips(shop, method), most + 20, houses=1) as sockets:
        until(lambda: _refused(sockets) == 20)
        answer = post("127.0.0.66")
        assert answer.status_code == 429
        assert answer.json() == {
            "type": "urn:footfall:problem:too-many-requests",
            "title": "Too many requests at once",
            "status": 429,
        }
        assert (answer.headers["content-type"], answer.headers["retry-after"]) == ("application/problem+json", "1")
        assert post("127.0.0.67").status_code != 429
        assert _refused(sockets) == 20
    until(lambda: post("127.0.0.66").status_code != 429)


def _refused(sockets: list[socket.socket]) -> int:
    """How many were told that it is too much."""
    count = 0
    for one in sockets:
        with suppress(BlockingIOError):
            count += one.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 429"
    return count


@pytest.mark.parametrize(
    ("ask", "status", "slug"),
    [
        ("POST /v1/cart HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2000000\r\n\r\n", 413, "body-too-large"),
        (f"GET /{'a' * 34_000} HTTP/1.1\r\nhost: localhost\r\n\r\n", 414, "query-too-long"),
        (f"GET / HTTP/1.1\r\nhost: localhost\r\nx-a: {'a' * 34_000}\r\n\r\n", 431, "headers-too-large"),
        (
            f"GET / HTTP/1.1\r\nhost: localhost\r\nx-a: {'a' * 33_000}\r\n\r\n",
            431,
            "headers-too-large",
        ),  # by the gateway
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\n" + "x: a\r\n" * 120 + "\r\n",
            431,
            "too-many-headers",
        ),  # by the gateway
        ("what is it\r\n\r\n", 400, "invalid-request"),
        ("TRACE / HTTP/1.1\r\nhost: localhost\r\n\r\n", 405, "method-not-allowed"),
        ("GET /problem HTTP/1.1\r\nhost: localhost\r\n\r\n", 404, "not-found"),
    ],
)
def test_what_is_refused_is_said_as_the_gateway_says_it(outside: str, ask: str, status: int, slug: str) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(outside).port or 0), timeout=5) as one:
        one.sendall(ask.encode())
        heard = b""
        while not heard.endswith(b"}"):
            heard += (more := one.recv(65_536))
            assert more, heard
    said, _, body = heard.decode().partition("\r\n\r\n")
    assert said.startswith(f"HTTP/1.1 {status}")
    assert "application/problem+json" in said
    assert f'"type":"urn:footfall:problem:{slug}"' in body
    assert f'"status":{status}' in body


def test_without_an_edge_it_says_so(front: Callable[[str, str], Front]) -> None:
    answer = httpx.get(f"{front('127.0.0.1:1', 'f' * 32).url}/v1/decisions?slots=top")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:footfall:problem:service-unavailable")
    assert (answer.headers["retry-after"], answer.headers["cache-control"]) == ("2", "no-store")


class Chunks(httpx.SyncByteStream):
    """A cart whose length nobody says."""

    def __iter__(self) -> Iterator[bytes]:
        yield from (b'{"lines": [{"id": "1", ', b'"price": 1000}]}')


def parts(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    """All of an answer but what is of a hop or an instant; of cookies all but their values, which are made anew."""
    fields = [(n.lower(), re.sub("^([^=]+)=[^;]*", r"\1", v) if n.lower() == "set-cookie" else v)
              for n, v in answer.headers.multi_items()]  # fmt: skip
    return answer.status_code, sorted(f for f in fields if f[0] not in OWN), answer.content


def test_an_answer_is_that_of_the_edge_byte_for_byte(shop: Shop, outside: str) -> None:
    page, visitor = "/v1/decisions?slots=top", header(shop.context({}))
    tag = httpx.get(shop.edge.url + page, headers=shop.key).headers["etag"]

    def both(method: str, path: str, headers: Mapping[str, str] = {}, **more: Any) -> httpx.Response:
        _, at_edge, here = (  # the first time something is made that is not there yet
            httpx.request(method, f"{url}{path}", headers={**shop.key, **headers}, **more)
            for url in (shop.edge.url, shop.edge.url, outside)
        )
        assert parts(here) == parts(at_edge)
        return here

    assert both("GET", page).headers["vary"]
    assert len(both("GET", f"/v1/decisions?slots={','.join(LARGE)}").content) > 100_000
    assert both("GET", page, {"if-none-match": tag}).status_code == 304
    assert both("HEAD", page).headers["content-length"] != "0"
    assert both("GET", page, {**visitor, "origin": "https://elsewhere.example"}).status_code == 200
    assert both("GET", "/v1/context").headers.get_list("set-cookie")
    assert both("GET", page, {"x-api-key": "none"}).status_code == 401
    assert both("GET", "/v1/nothing?%2f").status_code == 404
    assert both("POST", "/v1/cart", json=CART).status_code == 200
    assert both("POST", "/v1/cart", {"expect": "100-continue"}, json=CART).status_code == 200
    assert both("POST", "/v1/cart", {"content-type": "application/json"}, content=Chunks()).status_code == 200
    assert both("POST", "/v1/cart", content=b"x" * 1_100_000).status_code == 413
    assert both("OPTIONS", page, {"origin": "https://elsewhere.example"}).status_code < 500


def test_events_come_whole_also_those_that_are_put_aside(shop: Shop, outside: str) -> None:
    event = {"source": "t", "type": "product_view", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    events = [{**event, "id": f"e{n}", "subject": "visitor:v1", "data": {"sku": "S" * 50}} for n in range(100)]
    server = {"x-api-key": shop.stack.secrets.secret}
    answer = httpx.post(f"{outside}/v1/events", json={"events": events}, headers=server)
    assert int(answer.request.headers["content-length"]) > 16_384
    assert answer.json() == {"accepted": 100, "rejected": []}


def test_an_address_is_counted_with_those_of_its_network(
    state: Path, front: Callable[[str, str], Front], monkeypatch: Any
) -> None:
    """The map of front.conf, asked in place of the connection's address for what a header says."""
    houses = re.search(r"map \$remote_addr (\$house \{.*?\n    \})", CONF.read_text(), re.DOTALL)
    assert houses
    told = f"map $http_x_address {houses[1]}".replace("$remote_addr", "$http_x_address")
    conf = state / "houses.conf"
    conf.write_text(
        "daemon off; pid nginx.pid; error_log stderr; events {} http { access_log off; client_body_temp_path a;"
        " proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;"
        + told + " server { listen @LISTEN@; return 200 $house; } }"
    )  # fmt: skip
    monkeypatch.setattr("devstack.front.CONF", conf)
    url = front("", "").url
    for address, house in {
        "203.0.113.9": "203.0.113.9",
        "2001:db8:1:2:3:4:5:6": "2001:db8:1:2:",
        "2001:db8:1:2::6": "2001:db8:1:2:",
        "2001:db8::6": "2001:db8:",
        "2001:db8:1::6": "2001:db8:1:",
        "::1": "::1",
    }.items():
        assert httpx.get(url, headers={"x-address": address}).text == house
