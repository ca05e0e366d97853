"""What there may be of content, in bytes; what a save and a release cost does not grow with what is not theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from chassis import documents
from chassis.documents import Document
from content_svc import snapshot
from content_svc.domain.select import Block, Slot
from content_svc.domain.size import blocks_bytes
from content_svc.quotas import QUOTAS, block_bytes
from content_svc.snapshot import BLOCK, SLOT, build, filled
from hypothesis import given
from hypothesis import strategies as st

TEXT = {"schemaVersion": 1, "blocks": [{"id": "a", "type": "text", "props": {"text": "x" * 2000}}] * 30}
LARGE = {"title": "T", "websites": ["de"], "content": {"*": TEXT, "de": TEXT, "en": TEXT}}  # about 210 KiB
SMALL = {"title": "T", "content": {"*": {**TEXT, "blocks": TEXT["blocks"][:1]}}}


def kept(client: httpx.AsyncClient) -> list[str]:
    """The keys of what the service has in memory."""
    deps = client._transport.app._app.state.deps  # type: ignore[attr-defined]
    return [d.key for d in deps.snapshot.documents]


@pytest.mark.servers
class TestRoom:
    async def test_drafts_of_one_website_take_no_memory_and_no_room_of_others(self, client: httpx.AsyncClient) -> None:
        most, made = QUOTAS[BLOCK].website // (200 * 1024), 0
        for number in range(most + 1):
            answer = await client.post("/v1/blocks", json={"key": f"d{number}", **LARGE})
            made += answer.status_code == 201
        assert 0 < made <= most
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:footfall:problem:quota-full")
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/websites/0"
        assert "website de" in error["detail"]
        assert kept(client) == []
        for number, websites in enumerate(([], ["at"])):
            body = {"key": f"s{number}", **SMALL, "websites": websites, "status": "live"}
            assert (await client.post("/v1/blocks", json=body)).status_code == 201
        assert kept(client) == ["s0", "s1"]

    @pytest.mark.parametrize(
        ("noun", "pointer", "body"), [("blocks", "/content", "content"), ("slots", "/default", "default")]
    )
    async def test_one_document_is_only_so_large(
        self, client: httpx.AsyncClient, noun: str, pointer: str, body: str
    ) -> None:
        many = dict.fromkeys(["*", *(f"{a}{b}" for a in "abc" for b in "abc")], TEXT)
        answer = await client.post(f"/v1/{noun}", json={"key": "a", "title": "T", body: many})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:footfall:problem:too-large")
        assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]

    async def test_a_full_website_still_switches_off(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await client.post("/v1/blocks", json={"key": "a", **LARGE, "status": "live"})
        monkeypatch.setitem(QUOTAS, BLOCK, replace(QUOTAS[BLOCK], one=0, website=0, all=0))
        assert (await client.post("/v1/blocks", json={"key": "b", **LARGE})).status_code == 422
        assert (await client.post("/v1/blocks/a/disable")).json()["status"] == "disabled"
        assert (await client.delete("/v1/blocks/a", headers={"if-match": "2"})).status_code == 204

    async def test_lists_and_histories_come_in_pages(self, client: httpx.AsyncClient) -> None:
        for number in range(3):
            await client.post("/v1/blocks", json={"key": f"b{number}", **SMALL})
            await client.post("/v1/slots", json={"key": f"s{number}", "title": "T", "default": SMALL["content"]})
        await client.put("/v1/blocks/b0", json={**SMALL, "priority": 1}, headers={"if-match": "1"})
        for noun in ("blocks", "slots"):
            first = (await client.get(f"/v1/{noun}", params={"limit": 2})).json()
            rest = (await client.get(f"/v1/{noun}", params={"limit": 2, "after": first["next"]})).json()
            assert [d["key"] for d in first[noun] + rest[noun]] == [f"{noun[0]}{n}" for n in range(3)]
            assert (first["next"], rest["next"]) == (f"{noun[0]}1", None)
            assert (await client.get(f"/v1/{noun}", params={"limit": 501})).status_code == 422
        first = (await client.get("/v1/blocks/b0/versions", params={"limit": 1})).json()
        rest = (await client.get("/v1/blocks/b0/versions", params={"after": first["next"]})).json()
        assert [v["version"] for v in first["versions"] + rest["versions"]] == [2, 1]
        assert (first["next"], rest["next"]) == (2, None)

    async def test_a_save_reads_what_it_needs_and_no_more(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(5):
            await client.post("/v1/slots", json={"key": f"s{number}", "title": "T", "default": SMALL["content"]})
            await client.post(
                "/v1/blocks", json={"key": f"b{number}", **SMALL, "status": "live", "slots": [f"s{number}"]}
            )
        decode, read = documents._document, list[str]()
        monkeypatch.setattr(documents, "_document", lambda row: read.append(row["key"]) or decode(row))
        body = {**SMALL, "status": "live", "slots": ["s0", "s1"]}
        assert (await client.put("/v1/blocks/b0", json=body, headers={"if-match": "1"})).status_code == 200
        assert set(read) == {"b0"}
        read.clear()
        body = {"title": "T2", "default": SMALL["content"], "websites": ["de"]}
        answer = await client.put("/v1/slots/s1", json=body, headers={"if-match": "1"})
        assert answer.json()["type"].endswith("slot-in-use")
        assert set(read) == {"s1", "b0", "b1"}


def test_whom_a_block_is_for_counts_for_each_of_its_slots() -> None:
    """For gateways are told of it slot by slot."""
    body = {"audience": {"any_of": ["s" * 60] * 100}, "slots": ["a"], "content": {}}
    one, many = block_bytes(body), block_bytes({**body, "slots": [f"s{n}" for n in range(100)]})
    assert many - one > 99 * 100 * 60


def _block(key: str, websites: Any, largest: int) -> Block:
    none = frozenset[str]()
    return Block(key, websites, ("s",), none, none, none, none, 1, None, None, {}, largest)


BLOCKS = st.lists(st.tuples(st.frozensets(st.sampled_from("abcd")), st.integers(0, 9)), max_size=12)


@given(BLOCKS, st.integers(1, 4), st.lists(st.sampled_from("abcd")))
def test_the_largest_at_once_are_those_of_the_website_where_that_is_most(
    found: list[tuple[frozenset[str], int]], capacity: int, of: list[str]
) -> None:
    blocks = tuple(_block(f"b{n}", websites, size) for n, (websites, size) in enumerate(found))
    slot = Slot("s", frozenset(), capacity, "all", {}, blocks)
    there = (
        sorted((b.largest for b in blocks if not b.websites or website in b.websites), reverse=True)[:capacity]
        for website in (of or "abcd")
    )
    assert blocks_bytes(slot, of) == max(map(sum, there))


class Counted(frozenset[str]):
    """Websites, and how often anybody looked."""

    looked = 0

    def __iter__(self) -> Iterator[str]:
        Counted.looked += len(self)
        return super().__iter__()

    def __contains__(self, name: object) -> bool:
        Counted.looked += 1
        return super().__contains__(name)


@pytest.mark.parametrize("count", [10, 100])
def test_weighing_looks_at_each_website_of_each_block_a_few_times_whatever_there_is(count: int) -> None:
    Counted.looked = 0
    blocks = tuple(_block(f"b{n}", Counted(f"w{n}-{k}" for k in range(20)), n) for n in range(count))
    blocks_bytes(Slot("s", frozenset(), 50, "all", {}, blocks), [])
    assert Counted.looked <= 2 * 20 * count


def test_a_release_reads_each_document_once_and_gives_each_slot_its_own_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whom: dict[str, Any] = {"any_of": [], "all_of": [], "none_of": [], "groups": []}
    body = {"websites": [], "slots": ["s1"], "audience": whom, "priority": 1, "starts_at": None, "ends_at": None,
            "content": {}, "status": "live"}  # fmt: skip
    slot = {"websites": [], "capacity": 1, "display": "first", "default": {}}
    found = [
        Document(1, BLOCK, "a", 1, body), Document(2, BLOCK, "b", 1, {**body, "slots": ["s0", "s1", "s1"]}),
        *(Document(10 + n, SLOT, f"s{n}", 1, slot) for n in range(3)),
    ]  # fmt: skip
    made = build(1, found, [])
    assert {key: [b.key for b in s.blocks] for key, s in made.slots.items()} == {
        "s0": ["b"],
        "s1": ["a", "b"],
        "s2": [],
    }
    monkeypatch.setattr(snapshot, "block_of", lambda *_: pytest.fail("it was read before"))
    again = filled(found, lambda *_: pytest.fail("nothing is broken"))
    assert again["s1"].blocks[0] is made.slots["s1"].blocks[0]
