"""What other services ask of segments by name."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from chassis.auth import Actor, ServiceTokens

pytestmark = pytest.mark.servers
PAGE = {
    "all": [{"context": "utm_source", "op": "eq", "value": "x"}, {"not": {"context": "hour", "op": "gte", "value": 8}}]
}
ORDERS = {"orders": {"measure": "count", "op": "gte", "value": 1}}


@pytest.mark.parametrize(("websites", "seen"), [((), ["all", "at", "de", "page"]), (("de",), ["all", "de", "page"])])
async def test_of_the_keys_named_those_are_told_that_the_reader_may_see_and_what_they_ask_of_a_request(
    client: httpx.AsyncClient, websites: tuple[str, ...], seen: list[str]
) -> None:
    for key, condition, where in (
        ("all", ORDERS, []), ("at", ORDERS, ["at"]), ("de", ORDERS, ["de"]), ("page", PAGE, []), ("other", ORDERS, []),
    ):  # fmt: skip
        body: dict[str, Any] = {"key": key, "name": key, "condition": condition, "websites": where}
        assert (await client.post("/v1/segments", json=body)).status_code == 201
    token = ServiceTokens("s" * 32, "test").issue("segment-svc", Actor("ann", "viewer", websites))
    keys = ["page", "all", "at", "de", "nowhere", "", "all"]
    headers = {"authorization": f"Bearer {token}"}
    found = (await client.post("/v1/segments/named", json={"keys": keys}, headers=headers)).json()["segments"]
    assert [segment["key"] for segment in found] == seen
    assert {s["key"]: s["request_fields"] for s in found}["page"] == ["hour", "utm_source"]
    many = await client.post("/v1/segments/named", json={"keys": ["a"] * 601}, headers=headers)
    assert many.status_code == 422
