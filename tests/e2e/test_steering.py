"""What a page says of itself may steer content, and never a price."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from devstack.stack import Stack
from devstack.testing import until

pytestmark = [pytest.mark.servers, pytest.mark.slow]
WORDS = {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": "hi"}}]}}
BY_MAIL = {"context": "utm_source", "op": "eq", "value": "mail"}
FRENCH = {"context": "locale", "op": "eq", "value": "fr"}
BAVARIA = {"context": "region", "op": "eq", "value": "BY"}
BOUGHT = {"orders": {"measure": "count", "op": "gte", "value": 1}}
RULE = {"name": "N", "label": "ten", "status": "live", "all_groups": True, "action": {"type": "percent", "value": 10}}
BLOCK = {"title": "T", "status": "live", "slots": ["top"], "content": WORDS}
IN_USE = (409, "urn:footfall:problem:segment-in-use")


class Shop:
    """In the hands of a merchant, and of a page."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.client = stack, httpx.Client(base_url=stack.url, timeout=30)

    def admin(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {"x-api-key": self.stack.secrets.admin, **headers}
        return self.client.request(method, f"/admin/v1/{path}", json=body, headers=sent)

    def segment(self, key: str, condition: Any, **more: Any) -> httpx.Response:
        """Save one, new or not."""
        body = {"name": key, "status": "active", "condition": condition, **more}
        found = self.admin("GET", f"segments/{key}")
        if found.status_code == 404:
            return self.admin("POST", "segments", {"key": key, **body})
        return self.admin("PUT", f"segments/{key}", body, **{"if-match": found.headers["etag"]})

    def serves(self, key: str) -> None:
        until(lambda: (s := self.admin("GET", f"segments/{key}").json())["live_version"] == s["version"])

    def sees(self, query: str) -> tuple[str, list[str], int]:
        """The block, the messages, and the discount of a cart."""
        sent = {"x-api-key": self.stack.secrets.publishable}
        said = self.client.get(f"/v1/decisions?slots=top{query}", headers=sent).json()
        cart = self.client.post(f"/v1/cart?{query}", json={"lines": [{"id": "1", "price": 1000}]}, headers=sent).json()
        block, messages = said["slots"]["top"]["blocks"][0]["key"], said["messages"]
        return block, [message["label"] for message in messages], cart["discount"]


@pytest.fixture(scope="module")
def shop(services: Callable[..., AbstractContextManager[Stack]]) -> Iterator[Shop]:
    with services("steering") as stack:
        shop = Shop(stack)
        assert shop.admin("POST", "slots", {"key": "top", "title": "t", "default": WORDS}).status_code == 201
        for key, condition in (("mail", BY_MAIL), ("bavaria", BAVARIA), ("french", FRENCH)):
            assert shop.segment(key, condition).status_code == 201
            shop.serves(key)
        for_mail = {"key": "for-mail", **BLOCK, "audience": {"any_of": ["mail"]}}
        assert shop.admin("POST", "blocks", for_mail).status_code == 201
        elsewhere = {"key": "r", **RULE, "segments": {"none_of": ["bavaria"]}}
        assert shop.admin("POST", "cart-rules", elsewhere).status_code == 201
        yield shop
        shop.client.close()


@pytest.mark.parametrize("part", ["any_of", "all_of", "none_of"])
@pytest.mark.parametrize("key", ["mail", "french"])
def test_a_rule_for_what_a_page_says_of_itself_is_refused(shop: Shop, part: str, key: str) -> None:
    segments = {part: ["bavaria", key]}
    found = shop.admin("GET", "cart-rules/r").headers["etag"]
    for method, path, body in (("POST", "cart-rules", {"key": "r2"}), ("PUT", "cart-rules/r", {})):
        refused = shop.admin(method, path, {**body, **RULE, "segments": segments}, **{"if-match": found})
        (error,) = refused.json()["errors"]
        assert (refused.status_code, error["pointer"]) == (422, f"/segments/{part}/1")
        assert "a page says of itself" in error["detail"]


def test_a_block_for_it_is_shown_and_no_price_moves(shop: Shop) -> None:
    until(lambda: shop.sees("&utm_source=mail") == ("for-mail", ["ten"], 100))
    assert shop.sees("") == ("top:default", ["ten"], 100)


@pytest.mark.parametrize(
    ("key", "condition", "more", "user"),
    [
        ("bavaria", BY_MAIL, {}, "cart rule r"),
        ("bavaria", {"any": [BAVARIA, {"not": BY_MAIL}]}, {}, "cart rule r"),
        ("bavaria", BOUGHT, {}, "cart rule r"),
        ("bavaria", BAVARIA, {"applies_to": "customers"}, "cart rule r"),
        ("mail", BOUGHT, {}, "block for-mail"),
    ],
)
def test_what_is_relied_on_does_not_become_another_sort_of_thing(
    shop: Shop, key: str, condition: Any, more: dict[str, Any], user: str
) -> None:
    refused = shop.segment(key, condition, **more)
    assert (refused.status_code, refused.json()["type"]) == IN_USE
    assert [e["detail"] for e in refused.json()["errors"]] == [user]


@pytest.mark.parametrize(
    ("key", "condition"),
    [
        ("bavaria", {**BAVARIA, "value": "HH"}), ("mail", {**BY_MAIL, "value": "post"}), ("mail", BAVARIA),
        ("french", BOUGHT), ("french", FRENCH),
    ],
)  # fmt: skip
def test_what_stays_of_its_sort_or_is_in_nobodys_use_is_saved(shop: Shop, key: str, condition: Any) -> None:
    assert shop.segment(key, condition).status_code == 200
    shop.serves(key)


@pytest.mark.parametrize("first", ["inactive", "draft", None])
def test_what_a_rule_names_before_it_is_there_never_comes_to_be_what_a_page_says_of_itself(
    shop: Shop, first: str | None
) -> None:
    key = f"later-{first or 'never'}"
    if first:
        assert shop.segment(key, BOUGHT, status=first).status_code == 201
    rule = {"key": f"names-{key}", **RULE, "segments": {"any_of": [key]}}
    assert shop.admin("POST", "cart-rules", rule).status_code == 201
    refused = shop.segment(key, {"any": [BOUGHT, BY_MAIL]})
    assert (refused.status_code, refused.json()["type"]) == IN_USE
    assert [e["detail"] for e in refused.json()["errors"]] == [f"cart rule names-{key}"]
    block = {"key": f"for-{key}", **BLOCK, "audience": {"any_of": [f"free-{key}"]}}
    assert shop.admin("POST", "blocks", block).status_code == 201
    assert shop.segment(f"free-{key}", BY_MAIL).status_code == 201, "a block may be for it"
    assert shop.segment(key, BOUGHT).is_success


def test_it_is_not_saved_while_nobody_can_say_who_relies_on_it(shop: Shop) -> None:
    shop.stack.children["promo_svc"].kill()
    refused = shop.segment("bavaria", BOUGHT)
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:footfall:problem:users-unknown")
    shop.stack.children["segment_svc"].kill()
    body = {"key": "r3", **RULE, "segments": {"any_of": ["bavaria"]}}
    assert shop.admin("POST", "cart-rules", body).status_code == 503
