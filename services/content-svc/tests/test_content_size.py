"""The answer of a slot is bounded at save; asks are judged alone; what is switched off or deleted is so whoever saves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import asyncpg
import httpx
import pytest

pytestmark = pytest.mark.servers
T = 1_800_000_000_000
ROOM = 256 * 1024


def content(size: int) -> dict[str, Any]:
    """Elements of this many bytes in all, or a little less, but for their wrapping."""
    texts = ["x" * min(2000, size - at) for at in range(0, size, 2000)]
    assert len(texts) <= 50
    return {"schemaVersion": 1, "blocks": [{"id": "a", "type": "text", "props": {"text": text}} for text in texts]}


def block(key: str, size: int, *slots: str, **more: Any) -> dict[str, Any]:
    return {
        "key": key, "title": "B", "status": "live", "slots": slots or ("hero",), "content": {"*": content(size)}, **more,
    }  # fmt: skip


SLOT = {"key": "hero", "title": "Hero", "display": "all", "capacity": 50, "default": {"*": content(1)}}
ASK = {"website": "main", "slots": ["hero"], "at_ms": T}
HUGE = {"schemaVersion": 1, "blocks": [{"id": "a", "type": "text", "props": {"text": "😀" * 2000}}] * 40}


async def send(client: httpx.AsyncClient, method: str, path: str, body: Any, seen: int | None = None) -> Any:
    """The status; with the pointers of a refusal."""
    headers = {"if-match": str(seen)} if seen else {}
    answer = await client.request(method, f"/v1/{path}", json=body, headers=headers)
    pointers = [e["pointer"] for e in answer.json().get("errors", [])]
    return (answer.status_code, pointers) if pointers else answer.status_code


def unkeyed(body: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "key"} | more


class TestSize:
    async def test_what_a_slot_may_show_at_once_has_room_in_an_answer(self, client: httpx.AsyncClient) -> None:
        await send(client, "POST", "slots", SLOT)
        for key in ("a", "b"):
            assert await send(client, "POST", "blocks", block(key, 90_000)) == 201
        third = block("c", 90_000, "nowhere", "hero")
        assert await send(client, "POST", "blocks", third) == (422, ["/content"])
        assert await send(client, "POST", "blocks", {**third, "status": "draft"}) == 201
        assert await send(client, "PUT", "blocks/c", unkeyed(third), 1) == (422, ["/content"])
        answer = await client.post("/v1/select", json=ASK)
        assert 180_000 < len(answer.content) < ROOM
        await client.post("/v1/blocks/a/disable")
        assert await send(client, "PUT", "blocks/c", unkeyed(third), 1) == 200
        assert await send(client, "PUT", "blocks/c", unkeyed(third, priority=1), 2) == 200
        shown = (await client.post("/v1/select", json=ASK)).json()["slots"]["hero"]["blocks"]
        assert [b["key"] for b in shown] == ["c", "b"]

    async def test_only_as_many_as_it_shows_count_the_largest_first(self, client: httpx.AsyncClient) -> None:
        await send(client, "POST", "slots", {**SLOT, "capacity": 2})
        await send(client, "POST", "slots", {**SLOT, "key": "one", "display": "first"})
        for key in "abc":
            assert await send(client, "POST", "blocks", block(key, 98_000, "one", "hero")) == 201
        for number in range(9):
            assert await send(client, "POST", "blocks", block(f"small-{number}", 9, priority=1)) == 201
        assert await send(client, "PUT", "slots/hero", unkeyed(SLOT, capacity=3), 1) == (422, ["/capacity"])
        assert await send(client, "PUT", "slots/one", unkeyed(SLOT), 1) == (422, ["/capacity"])

    async def test_a_locale_is_shown_alone(self, client: httpx.AsyncClient) -> None:
        await send(client, "POST", "slots", {**SLOT, "default": dict.fromkeys(("*", "de", "fr"), content(14_000))})
        many = dict.fromkeys(("*", "de", "fr", "it"), content(50_000))
        assert await send(client, "POST", "blocks", block("a", 1, content=many)) == 201
        assert await send(client, "POST", "blocks", block("b", 1, content=many)) == 201
        assert await send(client, "POST", "blocks", block("c", 1, content={"de": HUGE})) == (422, ["/content"])

    async def test_a_default_has_room_too_and_a_slot_is_not_made_where_its_blocks_have_none(
        self, client: httpx.AsyncClient
    ) -> None:
        default = {"*": content(1), "de": HUGE}
        assert await send(client, "POST", "slots", {**SLOT, "default": default}) == (422, ["/default"])
        for key in "abc":
            assert await send(client, "POST", "blocks", block(key, 98_000)) == 201  # there is no such slot yet
        assert await send(client, "POST", "slots", SLOT) == (422, ["/capacity"])
        assert await send(client, "POST", "slots", {**SLOT, "capacity": 2}) == 201

    async def test_a_slot_that_was_too_full_can_be_emptied(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection
    ) -> None:
        for key in "abc":
            await send(client, "POST", "blocks", block(key, 98_000))
        body = json.dumps(unkeyed(SLOT, websites=[]))
        await stored.execute("INSERT INTO document (kind, key, version, body) VALUES ('slot', 'hero', 1, $1)", body)
        await stored.execute("UPDATE head SET version = version + 1")
        assert await send(client, "POST", "blocks", block("d", 1)) == (422, ["/content"])
        assert await send(client, "POST", "blocks", block("d", 1, status="draft")) == 201
        assert await send(client, "PUT", "blocks/a", unkeyed(block("a", 98_000, status="draft")), 1) == 200
        assert await send(client, "PUT", "blocks/d", unkeyed(block("d", 1)), 1) == 200

    async def test_one_that_cannot_be_read_takes_no_room(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection
    ) -> None:
        await send(client, "POST", "slots", SLOT)
        odd = {**block("odd", 98_000), "priority": None}
        await stored.execute(
            "INSERT INTO document (kind, key, version, body) VALUES ('block', 'odd', 1, $1)", json.dumps(odd)
        )
        for key in ("a", "b"):
            assert await send(client, "POST", "blocks", block(key, 98_000)) == 201


class TestAsks:
    async def test_an_ask_that_is_not_valid_spoils_no_other(self, client: httpx.AsyncClient) -> None:
        await send(client, "POST", "slots", SLOT)
        await send(client, "POST", "blocks", block("a", 1))
        odd = [{**ASK, "slots": ["hero", "s" * 201]}, {**ASK, "group": "g" * 2001}, {**ASK, "odd": 1}, {}, None, "x"]
        answer = await client.post("/v1/select-many", json={"asks": [ASK, *odd, {**ASK, "group": "g" * 2000}]})
        answers = answer.json()["answers"]
        assert [list(a["slots"]) for a in answers] == [["hero"], *([[]] * 6), ["hero"]]
        pointers = [[fault["pointer"] for fault in a.get("refused", [])] for a in answers]
        assert pointers == [[], ["/slots/1"], ["/group"], ["/odd"], ["/website", "/slots", "/at_ms"], [""], [""], []]
        assert all(a.keys() >= {"version", "tags", "next_change_at"} for a in answers)


async def waits(stored: asyncpg.Connection, asked: Awaitable[Any], most: int = 1) -> asyncio.Task[Any]:
    """Start something, and go on when so many wait for a lock."""
    task = asyncio.ensure_future(asked)
    async with asyncio.timeout(10):
        while await stored.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < most:
            assert not task.done(), task
            await asyncio.sleep(0.01)
    return task


class TestRaces:
    async def test_switching_a_block_off_wins_over_whoever_saves_it(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection
    ) -> None:
        body = block("a", 1)
        await send(client, "POST", "blocks", body)
        async with stored.transaction():  # somebody saves version 2
            await stored.execute("UPDATE head SET version = version + 1")
            await stored.execute("UPDATE document SET version = 2")
            off = await waits(stored, client.post("/v1/blocks/a/disable"))
            save = await waits(stored, send(client, "PUT", "blocks/a", unkeyed(body), 2), most=2)
        assert ((await off).status_code, await save) == (200, 412)
        assert (await client.get("/v1/blocks/a")).json()["status"] == "disabled"

    async def test_a_slot_is_not_deleted_under_a_block_that_is_being_saved(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection
    ) -> None:
        await send(client, "POST", "slots", SLOT)
        async with stored.transaction():
            await stored.execute("UPDATE head SET version = version + 1")
            await stored.execute(
                "INSERT INTO document (kind, key, version, body) VALUES ('block', 'a', 1, $1)",
                json.dumps(block("a", 1)),
            )
            deleted = await waits(stored, client.delete("/v1/slots/hero", headers={"if-match": "1"}))
        assert (await deleted).status_code == 409
