"""The example shop's page in a real Chromium: what a shopper sees and does, and that page and cart never contradict."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from devstack import browser
from devstack.testing import need

from tests.e2e.conftest import Demo

pytestmark = [pytest.mark.servers, pytest.mark.slow]
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    need(browser.available())
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a sandbox: tests may run as root, and the only page is ours.
        launched = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(chromium: Any, demo: Demo) -> Iterator[Any]:
    """A shopper's browser, at the shop; whatever the page complains of fails the test."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE_MS)
    made, complaints = context.new_page(), []
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    made.goto(demo.shop.replace("127.0.0.1", "localhost"))
    made.get_by_role("heading", name="Welcome").wait_for()
    yield made
    context.close()
    assert complaints == []


def become(page: Any, who: str) -> None:
    page.get_by_label("I am").select_option(who)


def click(page: Any, name: str) -> None:
    page.get_by_role("button", name=name).click()


def heading(page: Any, name: str) -> None:
    page.get_by_role("heading", name=name).wait_for()


def test_everybody_sees_their_own_and_where_it_came_from(page: Any) -> None:
    become(page, "vip")
    heading(page, "Welcome back, VIP")
    page.get_by_text("edge hit").first.wait_for()
    become(page, "wholesale")
    heading(page, "Volume prices")
    become(page, "reorder")
    heading(page, "Time to restock?")
    become(page, "bavaria")
    heading(page, "Bavaria: order by 17:00, there tomorrow")
    become(page, "guest")
    heading(page, "Order by 14:00, shipped today")
    heading(page, "Welcome")


def test_the_cart_outlives_a_reload_and_a_login_and_agrees_with_the_page(page: Any) -> None:
    click(page, "Put 120.00 into the cart")
    heading(page, "Shipping is on us")
    page.reload()
    page.get_by_role("row", name="2 × RUN-1 120.00").wait_for()
    heading(page, "Shipping is on us")
    become(page, "vip")
    heading(page, "Welcome back, VIP")
    page.get_by_role("row", name="2 × RUN-1 120.00").wait_for()
    heading(page, "Shipping is on us")
    click(page, "Empty the cart")
    page.get_by_role("row", name="It is empty").wait_for()
    heading(page, "Free shipping over 100.00")


def test_why_each_block_and_offer_is_there(page: Any) -> None:
    become(page, "wholesale")
    click(page, "Put 10 napkins into the cart")
    page.get_by_role("row", name="Wholesale volume prices -6.00").wait_for()
    heading(page, "Volume prices")
    for summary in page.get_by_text("Why").all():
        summary.click()
    page.get_by_text("volume: shown").wait_for()
    page.get_by_text("vip: not-in-segment").wait_for()
    page.get_by_text("volume: applied").wait_for()
    page.get_by_text("Segments: wholesale").click()
    page.get_by_text("✓ group in Wholesale (here: Wholesale)").wait_for()


def test_a_decision_that_could_not_be_made_says_that_it_is_a_stand_in(page: Any) -> None:
    def degraded(route: Any) -> None:
        answer = route.fetch()
        body = answer.json() | {"degraded": ["audience", "content"]}
        route.fulfill(response=answer, json=body, headers={**answer.headers, "cache-control": "private, no-store"})

    page.route("**/v1/decisions?*", degraded)
    click(page, "Come back another time")
    page.get_by_text("stand-in", exact=True).nth(4).wait_for()
    for summary in page.get_by_text("Why this?").all():
        summary.click()
    page.get_by_text("It is a stand-in").first.wait_for()
    assert page.get_by_text("No block is for this shopper").count() == 0
    assert page.get_by_title("It depends on this request").count() == 0
    page.unroute_all(behavior="wait")


@pytest.mark.parametrize("kept", ['{"a":1}', '[{"id":"1"}]', "null", "7", "[null]", "{", '"fill"'])
def test_a_cart_of_another_shape_is_an_empty_one(page: Any, kept: str) -> None:
    page.evaluate("kept => localStorage.setItem('cart', kept)", kept)
    page.reload()
    page.get_by_role("row", name="It is empty").wait_for()
    heading(page, "Welcome")
    assert page.get_by_role("alert").is_hidden()


def test_who_becomes_somebody_else_in_one_tab_is_that_in_the_others(page: Any) -> None:
    other = page.context.new_page()
    other.goto(page.url)
    heading(other, "Welcome")
    become(other, "vip")
    heading(page, "Welcome back, VIP")
    assert page.get_by_label("I am").input_value() == "vip"


def test_what_a_merchant_wrote_is_shown_as_text_with_safe_links_only(page: Any, demo: Demo) -> None:
    markup = "<img src=x onerror=alert(1)>"
    props = {"title": markup, "text": "", "href": "https://good.example/a"}
    content = {"*": {"schemaVersion": 1, "blocks": [{"id": "main", "type": "banner", "props": props}]}}
    block = {"key": "markup", "title": "markup", "status": "live", "slots": ["product.offer"], "content": content}
    with httpx.Client(base_url=f"{demo.stack.url}/admin/v1", headers={"x-api-key": demo.stack.secrets.admin}) as admin:
        assert admin.post("/blocks", json={**block, "priority": 1}).status_code == 201
        try:
            page.get_by_role("heading", name="Free returns").wait_for()
            link = page.get_by_role("link", name=markup)
            end = time.monotonic() + PATIENCE_MS / 1000
            while not link.is_visible():
                assert time.monotonic() < end, "it is not shown as it was written"
                click(page, "Come back another time")
                page.wait_for_timeout(500)
            assert link.get_attribute("href") == "https://good.example/a"
        finally:
            etag = admin.get("/blocks/markup").headers["etag"]
            body = {name: block[name] for name in ("title", "content", "slots")}
            admin.put("/blocks/markup", json={**body, "status": "disabled"}, headers={"if-match": etag})
    # What content-svc would refuse is not shown as a link either.
    found = page.evaluate("""async () => {
        const { safe } = await import("/shop.js");
        return ["/a", "https://good.example", "//evil.example", "/\\\\\\\\evil.example", "/\\t/evil.example",
                "javascript:alert(1)", "https:///evil.example", "http://evil.example"].map(link => safe(link) !== null);
    }""")
    assert found == [True, True, False, False, False, False, False, False]
