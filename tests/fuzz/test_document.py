"""The document of the API is true: whatever it allows, whoever asks it, the answer is one that it names, and none is a fault.

What is asked is made from the document by schemathesis; FUZZ_EXAMPLES says how many examples per route and key.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
import schemathesis
from devstack.shop.seed import campaigns, people, publish, settled
from devstack.stack import Secrets, Stack
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = [pytest.mark.servers, pytest.mark.slow]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
UNLIMITED = {f"{who}_PER_MINUTE": "1000000000" for who in ("PERSON", "BLOCK", "KEY", "BYTES")}
ROLES = ("viewer", "marketer", "admin")
KINDS = ("", "made-up", "publishable", "secret", *ROLES)
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
SCHEMA = schemathesis.openapi.from_dict(
    json.loads((Path(__file__).parents[2] / "docs" / "api" / "openapi.json").read_text())
)
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.fixture(scope="module")
def shop(services: Callable[..., AbstractContextManager[Stack]], state: Path) -> Iterator[Stack]:
    home = state / "document"
    home.mkdir()
    keys = json.loads(Secrets.of(home).keys())
    keys += [
        {"id": role, "sha256": hashlib.sha256(role.encode()).hexdigest(), "kind": "admin", "role": role}
        for role in ROLES
    ]
    more = {**UNLIMITED, "KEYS": json.dumps(keys), "BUDGET_MS": "5000"}
    with services("document", extra={"gateway": more}) as stack:
        campaigns(stack)  # so that lists have something in them
        publish(stack, people())
        assert settled(stack)
        yield stack


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=[f"{o.method.upper()} {o.path}" for o in OPERATIONS])
def test_whatever_the_document_allows_is_answered_as_it_says(shop: Stack, operation: object, kind: str) -> None:
    headers = {"x-api-key": getattr(shop.secrets, kind, kind)} if kind else {}

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy())  # type: ignore[attr-defined]
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=shop.url, headers=headers, checks=CHECKS)

    ask()


def test_there_is_a_page_about_every_route_that_takes_nothing_from_elsewhere(shop: Stack) -> None:
    page = httpx.get(f"{shop.url}/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert not re.search("https?://", page.text)
    taken = re.findall(r"""(?:src|href|url)(?:=|: )['"]([^'"]+)""", page.text)
    assert "/openapi.json" in taken
    assert len(taken) >= 3
    for path in taken:
        assert httpx.get(shop.url + path).status_code == 200
    paths = httpx.get(f"{shop.url}/openapi.json").json()["paths"]
    assert {"/v1/decisions", "/v1/cart", "/admin/v1/blocks", "/admin/v1/kills"} <= paths.keys()
