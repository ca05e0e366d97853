"""Explain says of a person and a request what a decision says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from devstack.stack import Stack, customer_token
from devstack.testing import until

pytestmark = [pytest.mark.servers, pytest.mark.slow]
FIELDS: dict[str, tuple[str, Any]] = {
    "hour": ("gte", 0), "weekday": ("gte", 1), "device": ("eq", "desktop"), "logged_in": ("eq", False),
    "landing_page": ("eq", "/sale"), "utm_source": ("eq", "mail"), "visit": ("eq", "new"),
}  # fmt: skip
NO_ORDER = {"orders": {"measure": "count", "op": "eq", "value": 0}}


@pytest.fixture(scope="module")
def shop(services: Callable[..., AbstractContextManager[Stack]]) -> Iterator[Stack]:
    """Every segment has a block of its own in the slot of its kind."""
    conditions = {name: {"context": name, "op": op, "value": value} for name, (op, value) in FIELDS.items()}
    with services("explain", extra={"gateway": {"BUDGET_MS": "20000"}}) as stack:
        with httpx.Client(base_url=f"{stack.url}/admin/v1", headers={"x-api-key": stack.secrets.admin}) as admin:
            for slot in ("fields", "new"):
                made(admin, "slots", key=slot, title=slot, default=words("all"), capacity=10, display="all")
            for name, condition in conditions.items():
                publish(admin, name.replace("_", "-"), "fields", condition=condition)
            for kind in ("visitors", "customers"):
                publish(admin, f"new-{kind}", "new", condition=NO_ORDER, applies_to=kind)
        until(lambda: shown(stack, "slots=new") == {"at-new-visitors"})  # and so all that was published before
        yield stack


def words(text: str) -> dict[str, Any]:
    return {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": text}}]}}


def made(admin: httpx.Client, kind: str, **body: Any) -> None:
    answer = admin.post(f"/{kind}", json=body)
    assert answer.status_code == 201, answer.text


def publish(admin: httpx.Client, key: str, slot: str, **segment: Any) -> None:
    made(admin, "segments", key=key, name=key, status="active", **segment)
    block = {"key": f"at-{key}", "title": key, "status": "live", "slots": [slot], "content": words(key)}
    made(admin, "blocks", **block, audience={"any_of": [key]})


def shown(shop: Stack, query: str, **headers: str) -> set[str]:
    key = {"x-api-key": shop.secrets.publishable, "user-agent": ""}
    answer = httpx.get(f"{shop.url}/v1/decisions?{query}", headers={**key, **headers}).json()
    return {block["key"] for slot in answer["slots"].values() for block in slot["blocks"]}


def explained(shop: Stack, profile: str, query: str) -> tuple[set[str], set[str], set[str]]:
    """(blocks that are not refused, blocks of the segments one is in, blocks of those that the reasons say so of)."""
    server = {"x-api-key": shop.secrets.secret}
    why = httpx.get(f"{shop.url}/v1/explain?profile={profile}&{query}", headers=server).json()
    kept = {block["block"] for slot in why["slots"].values() for block in slot if not block["refused"]}
    held = {f"at-{name}" for name, found in why["why"].items() if found["why"]["result"]}
    return kept, {f"at-{name}" for name in why["segments"]}, held


@pytest.mark.parametrize(
    ("query", "count"), [("slots=fields", 3), ("slots=fields&path=/sale&utm_source=mail&visit=new", 6)]
)
def test_it_supposes_of_a_request_what_a_decision_does(shop: Stack, query: str, count: int) -> None:
    found = shown(shop, query)
    assert len(found) == count
    assert explained(shop, "v:nobody", query) == (found, found, found)


def test_what_is_named_is_supposed(shop: Stack) -> None:
    kept, inside, held = explained(shop, "v:nobody", "slots=fields&device=desktop&landing_page=/sale&hour=0")
    assert kept == inside == held == {"at-hour", "at-weekday", "at-device", "at-logged-in", "at-landing-page"}


@pytest.mark.parametrize("said", ["", "1", "true", "false"])
def test_nobody_says_of_themselves_that_they_are_logged_in(shop: Stack, said: str) -> None:
    query = f"slots=fields&logged_in={said}"
    found = shown(shop, query)
    assert "at-logged-in" in found
    assert explained(shop, "v:nobody", query) == (found, found, found)
    token = customer_token(shop.secrets.jwt, "nobody-yet")
    mine = shown(shop, query, authorization=f"Bearer {token}")
    assert "at-logged-in" not in mine
    assert explained(shop, "c:nobody-yet", query) == (mine, mine, mine)


def test_who_is_a_customer_is_logged_in(shop: Stack) -> None:
    headers = {"authorization": f"Bearer {customer_token(shop.secrets.jwt, 'nobody-yet')}"}
    found = shown(shop, "slots=fields", **headers)
    assert "at-logged-in" not in found
    assert explained(shop, "c:nobody-yet", "slots=fields") == (found, found, found)


def test_a_customer_who_was_never_seen_is_a_customer(shop: Stack) -> None:
    token = customer_token(shop.secrets.jwt, "nobody-yet")
    for profile, headers, block in (
        ("v:nobody-yet", {}, "at-new-visitors"),
        ("c:nobody-yet", {"authorization": f"Bearer {token}"}, "at-new-customers"),
    ):
        assert shown(shop, "slots=new", **headers) == {block}
        assert explained(shop, profile, "slots=new") == ({block}, {block}, {block})
