"""content-svc on real PostgreSQL and Valkey: publish, select, refuse."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.servers
T = 1_800_000_000_000


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
