"""Through real Varnish: pages are cached by the segments that matter to them, and by nothing else; no leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from devstack import varnish as varnish_server
from devstack.stack import Secrets, Stack
from devstack.testing import need, until
from devstack.varnish import Varnish

from tests.e2e.shop import stays

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def words(text: str) -> dict[str, Any]:
    return {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": text}}]}}


class Shopper:
    """A visitor with cookies, behind a cache or not."""

    def __init__(self, stack: Stack, base: str) -> None:
        self.base, self.origin = base, stack.url
        self.key = {"x-api-key": stack.secrets.publishable}
        self.cookies: dict[str, str] = {}

    def refresh(self) -> None:
        answer = httpx.get(f"{self.origin}/v1/context", headers=self.header())
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.split(";")[0].partition("=")
            self.cookies[name] = value

    def known_in(self) -> str:
        """The codes the context cookie is signed for, and so the copies the edge may give: .s3.g."""
        return self.cookies.get("__Host-ff_ctx", ".").split("|")[0]

    def header(self) -> dict[str, str]:
        cookie = "; ".join(f"{n}={v}" for n, v in self.cookies.items())
        return {**self.key, "cookie": cookie} if cookie else self.key

    def see(self, slot: str, **headers: str) -> tuple[str, str]:
        answer = httpx.get(f"{self.base}/v1/decisions?slots={slot}", headers={**self.header(), **headers})
        assert answer.status_code == 200, answer.text
        block = answer.json()["slots"][slot]["blocks"][0]
        return block["key"], answer.headers.get("cache-status", "")

    def view(self, number: int, sku: str) -> None:
        event = {"id": f"{sku}-{number}", "type": "product_view", "data": {"sku": sku}}
        assert (
            httpx.post(f"{self.origin}/v1/events", json={"events": [event]}, headers=self.header()).json()["accepted"]
            == 1
        )


@pytest.fixture(scope="module")
def cache(state: Path) -> Iterator[Varnish]:
    """The edge the gateway knows of."""
    need(varnish_server.available())
    home = state / "edge"
    home.mkdir()
    server = Varnish(home, Secrets.of(home).edge_keys())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shop(services: Callable[..., AbstractContextManager[Stack]], cache: Varnish) -> Iterator[Stack]:
    """Services of their own: what others publish changes what the edge has to know, and turns hits into misses.

    They may take their time on a busy machine: a late answer is a degraded one, with another life in the cache.
    """
    with services("edge", edges=(cache.url,), extra={"gateway": {"BUDGET_MS": "20000"}}) as stack:
        cache.use(stack.address)
        with httpx.Client(base_url=f"{stack.url}/admin/v1", headers={"x-api-key": stack.secrets.admin}) as admin:
            publish(admin)
        yield stack


def publish(admin: httpx.Client) -> None:
    for sku in ("edge-a", "edge-b"):
        where = {"field": "sku", "op": "eq", "value": sku}
        condition = {"events": {"type": "product_view", "count": {"op": "gte", "value": 1}, "where": where}}
        body = {"key": f"{sku}-fans", "name": sku, "status": "active", "condition": condition}
        assert admin.post("/segments", json=body).status_code == 201
        assert (
            admin.post("/slots", json={"key": f"{sku}.top", "title": sku, "default": words("default")}).status_code
            == 201
        )
        block = {
            "key": f"{sku}-block",
            "title": sku,
            "status": "live",
            "slots": [f"{sku}.top"],
            "content": words("for fans"),
        }
        assert admin.post("/blocks", json={**block, "audience": {"any_of": [f"{sku}-fans"]}}).status_code == 201
    segments = lambda: admin.get("/segments").json()["segments"]  # noqa: E731
    until(lambda: all(s["live_version"] for s in segments() if s["key"].startswith("edge-")))


@pytest.fixture(scope="module")
def ids(shop: Stack) -> dict[str, int]:
    """The ids of both segments, by key."""
    answer = httpx.get(f"{shop.url}/admin/v1/segments", headers={"x-api-key": shop.secrets.admin})
    return {s["key"]: s["id"] for s in answer.json()["segments"]}


@pytest.fixture
def edge(shop: Stack, cache: Varnish) -> str:
    """The edge once it is trusted, with nothing in it."""
    stranger = Shopper(shop, cache.url)
    until(lambda: stays(lambda: "hit" in stranger.see("edge-a.top")[1]))
    headers = {"xkey-purge": "all", "x-purge-key": shop.secrets.purge}
    assert httpx.request("PURGE", cache.url, headers=headers).status_code == 200
    return cache.url


class TestEdge:
    def test_strangers_share_one_copy(self, shop: Stack, edge: str) -> None:
        assert Shopper(shop, edge).see("edge-a.top") == ("edge-a.top:default", "edge; fwd=miss")
        assert Shopper(shop, edge).see("edge-a.top") == ("edge-a.top:default", "edge; hit")

    def test_a_segment_changes_only_the_pages_it_matters_to(self, shop: Stack, ids: dict[str, int], edge: str) -> None:
        stranger, fan = Shopper(shop, edge), Shopper(shop, edge)
        fan.refresh()
        fan.view(1, "edge-a")

        def entered() -> bool:
            # Not what the gateway answers: with an older cookie the edge asks it, and may not keep what comes.
            fan.refresh()
            return fan.known_in() == f".s{ids['edge-a-fans']}."

        until(entered)
        assert fan.see("edge-a.top") == ("edge-a-block", "edge; fwd=miss")
        assert stranger.see("edge-a.top") == ("edge-a.top:default", "edge; hit"), "the base of the fan's own page"
        assert fan.see("edge-a.top") == ("edge-a-block", "edge; hit")

        assert stranger.see("edge-b.top") == ("edge-b.top:default", "edge; fwd=miss")
        assert fan.see("edge-b.top") == ("edge-b.top:default", "edge; hit"), (
            "one copy for both: the segment is irrelevant"
        )

    def test_headers_and_cookies_of_ones_own_making_change_nothing(
        self, shop: Stack, ids: dict[str, int], edge: str
    ) -> None:
        stranger = Shopper(shop, edge)
        codes = f".s{ids['edge-a-fans']}."
        for name in ("codes", "mask", "aud", "step", "key", "proof", "url"):
            assert stranger.see("edge-a.top", **{f"x-edge-{name}": codes})[0] == "edge-a.top:default"
        stranger.cookies["__Host-ff_ctx"] = f"{codes}|9999999999|999|1|" + "0" * 43
        for cookie in ({}, {"__Host-ff_vid": "v" * 22 + ".1." + "0" * 43}):
            stranger.cookies |= cookie
            assert stranger.see("edge-a.top")[0] == "edge-a.top:default"

    def test_a_purge_needs_the_secret_and_removes_every_variant(self, shop: Stack, edge: str) -> None:
        stranger = Shopper(shop, edge)
        stranger.see("edge-a.top")
        assert stranger.see("edge-a.top")[1] == "edge; hit"
        assert httpx.request("PURGE", edge, headers={"xkey-purge": "all"}).status_code == 404
        headers = {"xkey-purge": "main:slot:edge-a.top", "x-purge-key": shop.secrets.purge}
        assert httpx.request("PURGE", edge, headers=headers).status_code == 200
        assert stranger.see("edge-a.top")[1] == "edge; fwd=miss"

    def test_nothing_that_sets_cookies_or_names_a_person_is_stored(self, shop: Stack, edge: str) -> None:
        key = {"x-api-key": shop.secrets.publishable}
        seen = {httpx.get(f"{edge}/v1/context", headers=key).headers["set-cookie"].split(";")[0] for _ in range(3)}
        assert len(seen) == 3
        assert "xkey" not in httpx.get(f"{edge}/v1/decisions?slots=edge-a.top", headers=key).headers
