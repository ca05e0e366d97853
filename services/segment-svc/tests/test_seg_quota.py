"""What there may be of segments, in bytes, and how they are listed: in pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest
from chassis.auth import Actor, ServiceTokens
from chassis.quota import size
from segment_svc import catalog
from segment_svc.flows import backfill

pytestmark = pytest.mark.servers
SECRET = "s" * 32
CONDITION = {"orders": {"measure": "count", "op": "gte", "value": 1}}


def body(text: int = 0, *websites: str, **more: Any) -> dict[str, Any]:
    return {"name": "n", "description": "x" * text, "websites": list(websites), "condition": CONDITION, **more}


async def made(client: httpx.AsyncClient, key: str, text: int = 0, *websites: str, **more: Any) -> Any:
    answer = await client.post("/v1/segments", json={"key": key, **body(text, *websites, **more)})
    return answer.status_code if answer.is_success else _why(answer)


async def saved(client: httpx.AsyncClient, key: str, seen: int, text: int = 0, *websites: str, **more: Any) -> Any:
    headers = {"if-match": str(seen)}
    answer = await client.put(f"/v1/segments/{key}", json=body(text, *websites, **more), headers=headers)
    return answer.status_code if answer.is_success else _why(answer)


def _why(answer: httpx.Response) -> Any:
    problem = answer.json()
    return answer.status_code, problem["type"].rpartition(":")[2], [e["pointer"] for e in problem["errors"]]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {"owner": "", "status": "draft", "applies_to": "both", "overrides": [], **body(0, "a")}
    small = replace(
        catalog.QUOTA, one=size(stored) + 1000, website=2 * size(stored) + 1500, all=3 * size(stored) + 2300
    )
    monkeypatch.setattr(catalog, "QUOTA", small)


@pytest.mark.usefixtures("room")
class TestRoom:
    async def test_one_a_website_and_everybody_have_only_so_much(self, client: httpx.AsyncClient) -> None:
        assert await made(client, "a", 1001, "a") == (422, "too-large", ["/condition"])
        assert await made(client, "a", 750, "a") == 201
        assert await made(client, "b", 750, "a") == 201
        full = (409, "quota-full", ["/websites/0"])
        assert await made(client, "c", 0, "a") == full
        assert await made(client, "c", 750, "c") == 201
        assert await saved(client, "c", 1, 750, "a") == full
        assert await made(client, "d", 100, "d") == (409, "quota-full", ["/condition"])
        assert (await client.delete("/v1/segments/a", headers={"if-match": "1"})).status_code == 204
        assert await made(client, "d", 100, "d") == 201

    async def test_versions_before_take_no_room_and_switching_off_needs_none(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        assert await made(client, "a", 1000, "a", status="active") == 201
        for seen in (1, 2, 3):
            assert await saved(client, "a", seen, 1000, "a", status="active") == 200
        while await backfill.step(service.deps):
            pass
        assert await made(client, "b", 500, "a") == 201
        assert await saved(client, "a", 4, 1000, "a", status="inactive") == 200


class TestPages:
    async def test_lists_and_histories_come_in_pages_of_what_the_reader_may_see(
        self, client: httpx.AsyncClient
    ) -> None:
        for key, websites in (("d", ["a"]), ("c", []), ("b", ["b"]), ("a", ["a"])):
            assert await made(client, key, 0, *websites) == 201
        assert await saved(client, "a", 1, 1, "a") == 200
        assert await self.read(client, "segments") == (["a", "b", "c", "d"], None)
        assert await self.read(client, "segments", limit=2) == (["a", "b"], "b")
        assert await self.read(client, "segments", limit=2, after="b") == (["c", "d"], None)
        token = ServiceTokens(SECRET, "test").issue("segment-svc", Actor("ann", "viewer", ("a",)))
        client.headers["authorization"] = f"Bearer {token}"
        assert await self.read(client, "segments", limit=2) == (["a", "c"], "c")
        assert await self.read(client, "segments", limit=2, after="c") == (["d"], None)
        assert await self.read(client, "segments/a/versions", limit=1) == ([2], 2)
        assert await self.read(client, "segments/a/versions", limit=1, after=2) == ([1], None)
        assert (await client.get("/v1/segments/b/versions")).status_code == 404

    async def read(self, client: httpx.AsyncClient, path: str, **asked: Any) -> tuple[list[Any], Any]:
        said = (await client.get(f"/v1/{path}", params=asked)).json()
        assert said.keys() == {path.rpartition("/")[2], "next"}
        found, after = said.values()
        return [one.get("key", one["version"]) for one in found], after


async def test_a_condition_on_the_request_is_pointed_at_where_it_cannot_be_counted(client: httpx.AsyncClient) -> None:
    asked = {"condition": {"context": "country", "op": "eq", "value": "DE"}}
    assert _why(await client.post("/v1/segments/preview", json=asked)) == (422, "needs-request", ["/condition"])
