"""No block or slot takes others down: one that cannot be read or raises is left out alone; a save tries it first."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import asyncpg
import httpx
import pytest
from chassis.documents import Document
from content_svc.domain import select as selection
from content_svc.domain.probe import prove_block, prove_slot, visitors
from content_svc.domain.read import block_of, slot_of
from content_svc.domain.select import Visitor
from content_svc.schemas import DynamicBlock, NewDynamicBlock, SlotBody
from content_svc.snapshot import BROKEN, build
from structlog.testing import capture_logs

T = 1_800_000_000_000


def words(text: str) -> dict[str, Any]:
    return {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": text}}]}


SLOT = {"title": "Hero", "display": "all", "capacity": 9, "default": {"*": words("Welcome")}}
BLOCK = {"title": "B", "status": "live", "slots": ["hero"], "content": {"*": words("Hello")}}
ASK = {"website": "main", "slots": ["hero", "side"], "at_ms": T, "explain": True}
STORED = DynamicBlock.model_validate(BLOCK).model_dump(mode="json")
STORED_SLOT = SlotBody.model_validate(SLOT).model_dump(mode="json")
BLOCKS: list[dict[str, Any]] = [
    {"status": "live"},
    {**STORED, "audience": None},
    {**STORED, "audience": {"segments": ["vip"]}},
    {**STORED, "content": "Hello"},
    {**STORED, "content": {"*": None}},
    {**STORED, "priority": None},
    {**STORED, "starts_at": "tomorrow"},
    {**STORED, "websites": "main"},
    {**STORED, "slots": [["hero"], "hero"]},
]
SLOTS: list[dict[str, Any]] = [
    {}, {**STORED_SLOT, "default": None}, {**STORED_SLOT, "display": "some"}, {**STORED_SLOT, "capacity": "9"},
]  # fmt: skip


def boom(*_: Any) -> Any:
    raise ZeroDivisionError("a secret of ours")


async def setup(client: httpx.AsyncClient) -> dict[str, Any]:
    """Two slots and a block in both; what they show."""
    for key in ("hero", "side"):
        assert (await client.post("/v1/slots", json={"key": key, **SLOT})).status_code == 201
    answer = await client.post("/v1/blocks", json={"key": "good", **BLOCK, "slots": ["hero", "side"]})
    assert answer.status_code == 201, answer.text
    return (await ask(client))["slots"]


async def ask(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.post("/v1/select", json=ASK)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def store(stored: asyncpg.Connection, kind: str, bodies: list[dict[str, Any]]) -> None:
    for number, body in enumerate(bodies):
        await stored.execute(
            "INSERT INTO document (kind, key, version, body) VALUES ($1, $2, 1, $3)",
            kind,
            f"old-{number}",
            json.dumps(body),
        )


@pytest.mark.parametrize(("websites", "blocks"), [((), {"good", "odd"}), (("de",), {"good"})])
def test_explain_names_what_cannot_be_read_and_others_slots_to_who_is_of_all_websites(
    websites: tuple[str, ...], blocks: set[str]
) -> None:
    """A slot that is not his is, to anybody else, as one that is not there."""
    documents = [
        Document(1, "slot", "hero", 1, STORED_SLOT), Document(2, "slot", "side", 1, {**STORED_SLOT, "websites": ["at"]}),
        Document(3, "block", "good", 1, STORED), Document(4, "block", "odd", 1, {**STORED, "priority": None}),
    ]  # fmt: skip
    published = build(1, documents, [])
    visitor = Visitor("de", frozenset(), "guest", "*", T)
    found = published.explain(list(published.slots.values()), visitor, websites)
    assert {why["block"] for why in found.pop("hero")} == blocks
    assert found == ({} if websites else {"side": []})


@pytest.mark.servers
class TestUnreadable:
    async def test_a_stored_block_nobody_can_read_is_left_out_alone_and_named(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection
    ) -> None:
        before, counted = await setup(client), BROKEN.labels("block", "old-3")._value.get()
        await store(stored, "block", BLOCKS)
        with capture_logs() as logs:
            draft = {"key": "new", **BLOCK, "status": "draft"}
            assert (await client.post("/v1/blocks", json=draft)).status_code == 201
        found = await ask(client)
        assert found["slots"] == before
        named = [e["block"] for e in found["explain"]["hero"] if e["refused"] == "broken"]
        assert named == [f"old-{n}" for n, body in enumerate(BLOCKS) if "slots" in body]
        assert {e["block"] for e in found["explain"]["side"]} == {"good"}
        assert sorted(e["key"] for e in logs if e["event"] == "content_broken") == [
            f"old-{n}" for n in range(len(BLOCKS))
        ]
        assert BROKEN.labels("block", "old-3")._value.get() == counted + 1

    async def test_a_stored_slot_nobody_can_read_shows_nothing_of_its_own(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection
    ) -> None:
        before = await setup(client)
        await store(stored, "slot", SLOTS)
        assert (await client.post("/v1/blocks", json={"key": "new", **BLOCK, "status": "draft"})).status_code == 201
        answer = await client.post(
            "/v1/select", json={**ASK, "slots": ["hero", "side", *(f"old-{n}" for n in range(4))]}
        )
        assert answer.json()["slots"] == before
        assert set((await client.get("/v1/targeting")).json()["slots"]) == {"hero", "side"}

    async def test_what_is_broken_can_be_listed_switched_off_and_deleted(
        self, client: httpx.AsyncClient, stored: asyncpg.Connection
    ) -> None:
        await setup(client)
        await store(stored, "block", BLOCKS)
        await store(stored, "slot", SLOTS)
        assert len((await client.get("/v1/blocks")).json()["blocks"]) == len(BLOCKS) + 1
        assert (await client.get("/v1/usage", params={"segment": "vip"})).json() == {"users": []}
        for number in range(len(BLOCKS)):
            assert (await client.post(f"/v1/blocks/old-{number}/disable")).status_code == 200
        assert [e["block"] for e in (await ask(client))["explain"]["hero"]] == ["good"]
        for noun, version in (("blocks", 2), ("slots", 1)):
            answer = await client.delete(f"/v1/{noun}/old-1", headers={"if-match": f'"{version}"'})
            assert answer.status_code == 204


@pytest.mark.servers
class TestRaising:
    async def test_a_block_that_raises_is_left_out_alone_and_named(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = await setup(client)
        await client.post("/v1/blocks", json={"key": "odd", **BLOCK})
        real = selection.refusal
        monkeypatch.setattr(selection, "refusal", lambda b, v: boom() if b.key == "odd" else real(b, v))
        with capture_logs() as logs:
            for _ in range(3):
                found = await ask(client)
                assert found["slots"] == before
                assert {"block": "odd", "refused": "broken"} in found["explain"]["hero"]
        assert [e["key"] for e in logs if e["event"] == "content_broken"] == ["odd"]

    async def test_a_slot_that_raises_leaves_the_others(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = await setup(client)
        real = selection.judged
        monkeypatch.setattr(selection, "judged", lambda s, *rest: boom() if s.key == "side" else real(s, *rest))
        answer = await client.post("/v1/select-many", json={"asks": [{**ASK, "explain": False}] * 2})
        assert [a["slots"] for a in answer.json()["answers"]] == [{"hero": before["hero"]}] * 2


@pytest.mark.servers
class TestTriedFirst:
    async def test_what_would_raise_is_not_saved_and_says_nothing_of_us(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = await setup(client)
        real = selection.localized
        monkeypatch.setattr(
            selection, "localized", lambda c, name: boom() if "de" in c and name == "de-AT" else real(c, name)
        )
        german = {"*": words("Hello"), "de": words("Hallo")}
        with capture_logs() as logs:
            block = await client.post("/v1/blocks", json={"key": "odd", **BLOCK, "content": german})
            slot = await client.post("/v1/slots", json={"key": "odd", **SLOT, "default": german})
        for answer in (block, slot):
            assert (answer.status_code, answer.json()["type"]) == (422, "urn:footfall:problem:content-invalid")
            assert "secret" not in answer.text
            assert "Zero" not in answer.text
        assert [(e["kind"], e["error"]) for e in logs if e["event"] == "content_refused_by_probe"] == [
            ("block", "ZeroDivisionError"), ("slot", "ZeroDivisionError")
        ]  # fmt: skip
        assert (await ask(client))["slots"] == before
        assert (await client.post("/v1/blocks/good/disable")).status_code == 200


class TestProbes:
    def test_a_block_is_tried_in_and_out_of_every_audience_at_every_bound_and_in_every_locale(self) -> None:
        audience = {"any_of": ["vip", "gold"], "all_of": ["de"], "none_of": ["staff"], "groups": ["trade", "press"]}
        body = {**BLOCK, "key": "b", "audience": audience, "starts_at": T, "ends_at": T + 9, "websites": ["shop"]}
        body["content"] = {"de": words("Hallo"), "fr-CA": words("Bonjour")}
        block = block_of("b", NewDynamicBlock.model_validate(body).model_dump(mode="json"))
        slot = slot_of("hero", STORED_SLOT, [block])
        made = list(visitors(slot))
        assert {v.at_ms - T for v in made} >= {-1, 0, 1, 8, 9, 10}
        assert {v.locale for v in made} >= {"*", "de", "de-AT", "fr-CA", "fr-AT", "xx-XX"}
        assert {v.group for v in made} >= {"guest", "trade", "press"}
        assert {v.website for v in made} == {"main", "shop"}
        reasons = {selection.refusal(block, v) for v in made}
        assert reasons >= {
            None,
            "other-website",
            "not-started",
            "ended",
            "not-in-segment",
            "in-excluded-segment",
            "other-group",
        }

    def test_who_is_not_known_to_be_out_is_not_shown_what_is_for_those_outside(self) -> None:
        block = block_of("b", {**STORED, "audience": {"any_of": [], "all_of": [], "none_of": ["staff"], "groups": []}})
        asked = Visitor("main", frozenset(), "guest", "*", T)
        for visitor, reason in (
            (asked, None),
            (replace(asked, unknown=frozenset({"vip"})), None),
            (replace(asked, unknown=frozenset({"staff"})), "segment-unknown"),
            (replace(asked, killed=frozenset("b")), "killed"),
        ):
            assert selection.refusal(block, visitor) == reason

    def test_what_is_sound_is_shown_to_somebody(self) -> None:
        prove_block("b", STORED)
        prove_slot("s", STORED_SLOT)
        everybody = slot_of("hero", STORED_SLOT, [block_of("b", STORED)])
        assert {selection.refusal(everybody.blocks[0], v) for v in visitors(everybody)} == {None}
