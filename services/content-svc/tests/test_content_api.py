"""content-svc on real PostgreSQL and Valkey: publish, select, refuse."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import httpx
import pytest
from chassis.cache import open_redis
from chassis.documents import RELEASE
from chassis.publishing import publisher
from content_svc.app import SCHEMA
from content_svc.settings import Settings
from content_svc.snapshot import build

pytestmark = pytest.mark.servers
T, SECRET = 1_800_000_000_000, "s" * 32


def words(text: str) -> dict[str, Any]:
    return {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": text}}]}}


SLOT = {"key": "home.hero", "title": "Hero", "default": words("Welcome")}
VIP = {
    "key": "vip", "title": "VIP", "status": "live", "slots": ["home.hero"], "audience": {"any_of": ["vip"]},
    "content": words("Hello VIP"),
}  # fmt: skip
ASK = {"website": "main", "slots": ["home.hero"], "at_ms": 1_000}


async def ask(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/select", json={**ASK, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestSelection:
    async def test_the_audience_sees_the_block_and_everybody_else_the_default(self, client: httpx.AsyncClient) -> None:
        assert (await client.post("/v1/slots", json=SLOT)).status_code == 201
        assert (await client.post("/v1/blocks", json=VIP)).status_code == 201
        found = await ask(client, segments=["vip"])
        assert [b["key"] for b in found["slots"]["home.hero"]["blocks"]] == ["vip"]
        found = await ask(client, explain=True)
        assert found["slots"]["home.hero"]["fallback"] is True
        assert found["explain"]["home.hero"] == [{"block": "vip", "refused": "not-in-segment"}]

    async def test_a_slot_of_another_website_shows_nothing_and_explain_says_why(
        self, client: httpx.AsyncClient
    ) -> None:
        await client.post("/v1/slots", json={**SLOT, "websites": ["elsewhere"]})
        await client.post("/v1/blocks", json=VIP)
        for website, refused, shown in (("main", "slot-of-other-website", []), ("elsewhere", None, ["vip"])):
            found = await ask(client, segments=["vip"], website=website, explain=True)
            assert [block["key"] for block in found["slots"]["home.hero"]["blocks"]] == shown
            assert found["explain"]["home.hero"] == [{"block": "vip", "refused": refused}]

    async def test_explain_says_which_of_several_a_slot_has_room_for(self, client: httpx.AsyncClient) -> None:
        await client.post("/v1/slots", json={**SLOT, "display": "all", "capacity": 2})
        for key, audience in (("a", {}), ("b", {"any_of": ["vip"]}), ("c", {}), ("d", {})):
            await client.post("/v1/blocks", json={**VIP, "key": key, "audience": audience})
        found = await ask(client, explain=True)
        assert [block["key"] for block in found["slots"]["home.hero"]["blocks"]] == ["a", "c"]
        refused = {why["block"]: why["refused"] for why in found["explain"]["home.hero"]}
        assert refused == {"a": None, "b": "not-in-segment", "c": None, "d": "slot-full"}

    async def test_an_unknown_segment_is_nobody(self, client: httpx.AsyncClient) -> None:
        await client.post("/v1/slots", json=SLOT)
        await client.post("/v1/blocks", json={**VIP, "audience": {"all_of": ["never-made"]}})
        assert (await ask(client, segments=["vip"]))["slots"]["home.hero"]["fallback"] is True

    async def test_a_schedule_bounds_the_answer_and_takes_effect_to_the_millisecond(
        self, client: httpx.AsyncClient
    ) -> None:
        await client.post("/v1/slots", json=SLOT)
        await client.post("/v1/blocks", json={**VIP, "audience": {}, "starts_at": T, "ends_at": T + 1_000})
        found = [
            (await ask(client, at_ms=at))["slots"]["home.hero"]["fallback"] for at in (T - 1, T, T + 999, T + 1_000)
        ]
        assert found == [True, False, False, True]
        assert (await ask(client, at_ms=T - 1))["next_change_at"] == T

    async def test_disabling_takes_a_block_off_at_once(self, client: httpx.AsyncClient) -> None:
        await client.post("/v1/slots", json=SLOT)
        await client.post("/v1/blocks", json=VIP)
        await client.post("/v1/blocks/vip/disable")
        assert (await ask(client, segments=["vip"]))["slots"]["home.hero"]["fallback"] is True


class TestGovernance:
    async def test_a_slot_without_default_content_is_refused_with_a_pointer(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/slots", json={"key": "x", "title": "X"})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/default"

    async def test_a_stale_edit_is_refused(self, client: httpx.AsyncClient) -> None:
        await client.post("/v1/slots", json=SLOT)
        body = {"title": "New", "default": words("x")}
        assert (await client.put("/v1/slots/home.hero", json=body)).status_code == 428
        assert (await client.put("/v1/slots/home.hero", json=body, headers={"if-match": '"7"'})).status_code == 412
        assert (await client.put("/v1/slots/home.hero", json=body, headers={"if-match": '"1"'})).status_code == 200

    async def test_markup_is_not_a_link_and_script_not_a_type(self, client: httpx.AsyncClient) -> None:
        for element in (
            {"id": "a", "type": "html", "props": {"html": "<script>"}},
            {"id": "a", "type": "cta", "props": {"label": "x", "href": "javascript:alert(1)"}},
            {"id": "a", "type": "cta", "props": {"label": "x", "href": "/\\evil.example"}},
        ):
            body = {**SLOT, "default": {"*": {"schemaVersion": 1, "blocks": [element]}}}
            assert (await client.post("/v1/slots", json=body)).status_code == 422

    async def test_usage_names_the_blocks_of_a_segment(self, client: httpx.AsyncClient) -> None:
        await client.post("/v1/blocks", json=VIP)
        assert (await client.get("/v1/usage", params={"segment": "vip"})).json() == {"users": ["block vip"]}
        assert (await client.delete("/v1/slots/none", headers={"if-match": '"1"'})).status_code == 404

    async def test_of_a_segment_that_is_taken_from_websites_it_names_those_that_would_be_without_it(
        self, client: httpx.AsyncClient
    ) -> None:
        for key, websites in (("all", []), ("at", ["at"]), ("de", ["de"])):
            made = await client.post("/v1/blocks", json={**VIP, "key": key, "websites": websites})
            assert made.status_code == 201
        asked = {"segment": "vip", "was": ["at", "de"], "stays": ["de"]}
        assert (await client.get("/v1/usage", params=asked)).json() == {"users": ["block all", "block at"]}

    @pytest.mark.parametrize(
        ("was", "stays", "users"),
        [
            ([], ["de"], ["block all", "block at"]), (["at", "de"], ["de"], ["block all", "block at"]),
            (["at", "de"], ["at"], ["block all", "block de"]), (["at", "de", "fr"], ["at", "de"], ["block all"]),
            (["de"], ["de"], []), (["de"], ["at", "de"], []), (["de"], [], []),
        ],
    )  # fmt: skip
    async def test_a_slot_is_taken_from_no_website_of_a_block_that_names_it(
        self, client: httpx.AsyncClient, was: list[str], stays: list[str], users: list[str]
    ) -> None:
        assert (await client.post("/v1/slots", json={**SLOT, "websites": was})).status_code == 201
        for key, websites in (("all", []), ("at", ["at"]), ("de", ["de"])):
            made = await client.post("/v1/blocks", json={**VIP, "key": key, "websites": websites})
            assert made.status_code == 201
        body = {"title": "New", "default": words("x"), "websites": stays}
        saved = await client.put("/v1/slots/home.hero", json=body, headers={"if-match": '"1"'})
        assert saved.status_code == (409 if users else 200)
        assert [e["detail"] for e in saved.json().get("errors", [])] == users


HELLO, BYE = words("Hello")["*"], words("Bye")["*"]
FR = {"*": HELLO, "fr": HELLO}
TWO = {**HELLO, "blocks": [{**HELLO["blocks"][0], "id": key} for key in "ab"]}
EDITS = [
    (FR, {"*": HELLO, "fr": BYE}, False), (FR, FR, False), (FR, {"*": HELLO}, True), (FR, {**FR, "fr-CA": HELLO}, True),
    ({"*": TWO}, {"*": HELLO}, True), ({"*": HELLO}, {"*": TWO}, True),
]  # fmt: skip


class TestEdits:
    """What a save says of itself to who purges: `hard` unless it cannot have ended anything for anybody."""

    @pytest.mark.parametrize(
        ("noun", "before", "after", "hard"),
        [
            *((noun, *case) for noun in ("blocks", "slots") for case in EDITS),
            ("blocks", FR, {"fr": HELLO}, True), ("blocks", {"fr": HELLO}, FR, True),
        ],
    )  # fmt: skip
    async def test_other_words_are_soft_and_what_may_end_for_somebody_is_not(
        self, client: httpx.AsyncClient, noun: str, before: Any, after: Any, hard: bool
    ) -> None:
        body, field = (VIP, "content") if noun == "blocks" else (SLOT, "default")
        assert (await client.post(f"/v1/{noun}", json={**body, field: before})).status_code == 201
        change = {name: value for name, value in body.items() if name != "key"} | {"title": "Other", field: after}
        saved = await client.put(f"/v1/{noun}/{body['key']}", json=change, headers={"if-match": "1"})
        assert saved.status_code == 200, saved.text
        assert (await client.get("/v1/targeting")).json()["changes"][-1]["hard"] is hard

    @pytest.mark.parametrize("content", [None, [], {"*": {"blocks": [1]}}])
    async def test_after_what_could_not_be_read_nothing_is(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection, content: Any
    ) -> None:
        await client.post("/v1/blocks", json=VIP)
        body = json.loads(await stored.fetchval("SELECT body FROM document"))
        await stored.execute("UPDATE document SET body = $1", json.dumps({**body, "content": content}))
        change = {name: value for name, value in VIP.items() if name != "key"}
        saved = await client.put("/v1/blocks/vip", json=change, headers={"if-match": "1"})
        assert saved.status_code == 200, saved.text
        assert (await client.get("/v1/targeting")).json()["changes"][-1]["hard"] is True


class TestRedis:
    @pytest.mark.parametrize("odd", ["12.5", "x1", "9" * 30, ["a list"]])
    async def test_an_odd_version_in_redis_stops_nobody_and_is_written_over(
        self, database: str, redis_url: str, stored: asyncpg.Connection, odd: Any
    ) -> None:
        redis = open_redis(redis_url)

        async def spoil() -> None:
            await redis.delete("ver:content")
            await (redis.rpush("ver:content", *odd) if isinstance(odd, list) else redis.set("ver:content", odd))

        await spoil()
        async with publisher(
            Settings(database, redis_url, SECRET), "content-svc", schema=SCHEMA, version_key="ver:content", build=build
        ) as opened:
            assert await redis.get("ver:content") == b"1", "at the start"
            await spoil()
            await opened.ahead.look()
            assert await redis.get("ver:content") == b"1", "every second"
            await spoil()
            await opened.relay.at_once(RELEASE, b"7")
            assert await redis.get("ver:content") == b"7", "with a save"
            await opened.ahead.look()
            assert opened.snapshot.version == 1
            await opened.snapshot.refresh()
            assert opened.snapshot.version == 8, "the database goes on after what readers were told"
            await redis.set("ver:segment", "12.5")
            assert await opened.segment_version() is None
        await redis.aclose()
