"""What there may be of cart rules, in bytes, and how they are listed: in pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest
from promo_svc.flows import save_rule

pytestmark = pytest.mark.servers
RULE = {"name": "r", "all_groups": True, "action": {"type": "percent", "value": 10}}


async def made(client: httpx.AsyncClient, key: str, **more: Any) -> Any:
    answer = await client.post("/v1/cart-rules", json={"key": key, **RULE, **more})
    if answer.is_success:
        return answer.status_code
    problem = answer.json()
    return answer.status_code, problem["type"].rpartition(":")[2], [e["pointer"] for e in problem["errors"]]


async def test_rules_have_a_bound_alone_of_a_website_and_together(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await made(client, "a", websites=["a"], status="live") == 201
    one = (await client.get("/v1/cart-rules/a")).json()
    counted = save_rule.QUOTA.weigh({name: value for name, value in one.items() if name not in ("key", "version")})
    small = replace(save_rule.QUOTA, one=counted + 200, website=2 * counted, all=3 * counted)
    monkeypatch.setattr(save_rule, "QUOTA", small)
    assert await made(client, "b", websites=["a"], label="x" * 200, coupon="c" * 64) == (
        422,
        "too-large",
        ["/condition"],
    )
    assert await made(client, "b", websites=["a"]) == 201
    assert await made(client, "c", websites=["a"]) == (409, "quota-full", ["/websites/0"])
    assert await made(client, "c", websites=["b"]) == 201
    assert await made(client, "d", websites=["c"]) == (409, "quota-full", ["/condition"])
    assert (await client.post("/v1/cart-rules/a/disable")).status_code == 200


async def test_lists_and_histories_come_in_pages(client: httpx.AsyncClient) -> None:
    for key in ("c", "a", "b"):
        assert await made(client, key) == 201
    await client.post("/v1/cart-rules/a/disable")
    pages = [(await client.get("/v1/cart-rules", params={"limit": 2, "after": after})).json() for after in ("", "b")]
    assert [([r["key"] for r in page["rules"]], page["next"]) for page in pages] == [(["a", "b"], "b"), (["c"], None)]
    asked = ({"limit": 1}, {"after": 2})
    pages = [(await client.get("/v1/cart-rules/a/versions", params=params)).json() for params in asked]
    assert [([v["version"] for v in page["versions"]], page["next"]) for page in pages] == [([2], 2), ([1], None)]


async def test_a_code_is_another_rules_by_what_is_live_whoever_published_it(
    client: httpx.AsyncClient, stored: Any
) -> None:
    """Of which the snapshot may not have heard yet."""
    assert await made(client, "a", coupon="TEN", status="draft") == 201
    await stored.execute("""UPDATE document SET version = 2, body = replace(body, '"draft"', '"live"')""")
    await stored.execute("UPDATE head SET version = version + 1")
    assert await made(client, "b", coupon="ten", status="live") == (422, "rule-invalid", ["/coupon"])
