"""Everybody leaves a segment at once: each of them is told of, and only when it is that version they leave."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis import bus
from chassis.documents import FACTS
from contracts import topics
from segment_svc import store
from segment_svc.domain.leaves.person import Attribute
from segment_svc.flows import backfill
from segment_svc.flows import quarantine as quarantines

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import START, VIEWED, Log, event, make, members

pytestmark = pytest.mark.servers
PEOPLE = [f"v:{name}" for name in "abcdefg"]


@pytest.fixture
async def shop(client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Seven members of `viewers`, of whom three are taken at a time; what is announced together is counted."""
    monkeypatch.setattr(store, "MOVED", 3)
    log = Log(service)
    await make(client, service, "viewers")
    await log.give(*(event(i, who=f"visitor:{name}") for i, name in enumerate("abcdefg")))
    return log


async def put(client: httpx.AsyncClient, service: Any, **change: Any) -> None:
    found = (await client.get("/v1/segments/viewers")).json()
    body = {"name": "viewers", "status": "active", "condition": VIEWED, **change}
    answer = await client.put("/v1/segments/viewers", json=body, headers={"if-match": f'"{found["version"]}"'})
    assert answer.status_code == 200, answer.text
    while await backfill.step(service.deps):
        pass


async def told(service: Any) -> Counter[tuple[str, bool, str, int]]:
    """(profile, entered, cause, version) of every fact, which are those of the transitions; none in a lot of over seven."""
    async with service.deps.db.tx() as tx:
        rows = await tx.fetch("SELECT payload FROM outbox WHERE channel = $1 ORDER BY id", FACTS)
        kept = await tx.fetch("SELECT profile, entered, cause, definition_version FROM transition")
    found = [r for row in rows for r in bus.unpack(row["payload"]) if r.topic == topics.SEGMENT_MEMBERSHIP]
    facts = [json.loads(r.value or b"")["data"] for r in found]
    assert {f["segment"] for f in facts} == {"viewers"}
    said = Counter((f["profile"], f["entered"], f["cause"], f["definitionVersion"]) for f in facts)
    assert said == Counter(tuple(row) for row in kept)
    return said


class TestEverybodyLeaves:
    @pytest.mark.parametrize("status", ["inactive", "draft"])
    async def test_who_leaves_a_segment_that_is_switched_off_is_told_of(
        self, client: httpx.AsyncClient, service: Any, shop: Log, status: str
    ) -> None:
        before = await told(service)
        await put(client, service, status=status)
        assert await told(service) - before == Counter((who, False, "definition", 2) for who in PEOPLE)
        assert await members(client, "viewers") == set()

    async def test_who_leaves_a_segment_that_is_deleted_is_told_of(
        self, client: httpx.AsyncClient, service: Any, shop: Log
    ) -> None:
        before = await told(service)
        assert (await client.delete("/v1/segments/viewers", headers={"if-match": '"1"'})).status_code == 204
        assert await told(service) - before == Counter((who, False, "definition", 1) for who in PEOPLE)

    async def test_who_leaves_a_segment_that_is_quarantined_is_told_of(
        self, client: httpx.AsyncClient, service: Any, shop: Log
    ) -> None:
        before = await told(service)
        await quarantines.quarantine(service.deps, {"viewers": "ZeroDivisionError"}, {"viewers": 1})
        assert await told(service) - before == Counter((who, False, "quarantine", 1) for who in PEOPLE)
        assert await members(client, "viewers") == set()

    async def test_who_leaves_and_enters_by_a_new_version_is_told_of(
        self, client: httpx.AsyncClient, service: Any, shop: Log
    ) -> None:
        before = await told(service)
        await put(client, service, condition={"all": [VIEWED, {"context": "country", "op": "eq", "value": "DE"}]})
        assert await told(service) - before == Counter((who, False, "definition", 2) for who in PEOPLE)
        before = await told(service)
        await put(client, service)
        assert await told(service) - before == Counter((who, True, "definition", 3) for who in PEOPLE)
        done = (await client.get("/v1/backfills")).json()["backfills"]
        assert [(job["entered"], job["exited"]) for job in done[:2]] == [(7, 0), (0, 7)]
        before = await told(service)
        await put(client, service, condition={"events": {"type": "search", "count": {"op": "gte", "value": 1}}})
        assert await told(service) - before == Counter((who, False, "definition", 4) for who in PEOPLE)
        assert await members(client, "viewers") == set()

    async def test_however_many_leave_a_page_of_them_is_in_memory_at_a_time(
        self, client: httpx.AsyncClient, service: Any, shop: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        announce, lots = store.announce, []

        async def counted(tx: Any, moves: Any, keys: Any, *, now: int) -> None:
            lots.append(len(moves))
            await announce(tx, moves, keys, now=now)

        monkeypatch.setattr(store, "announce", counted)
        await put(client, service, status="inactive")
        await put(client, service)
        assert lots == [3, 3, 1, 3, 3, 1]


class TestReferred:
    @pytest.mark.parametrize(
        "change",
        [
            {"status": "inactive"},
            {"status": "draft"},
            {"condition": {"any": [VIEWED, {"context": "country", "op": "eq", "value": "DE"}]}},
        ],
    )
    async def test_what_others_refer_to_stays_what_they_can_refer_to_and_they_are_named(
        self, client: httpx.AsyncClient, service: Any, shop: Log, change: dict[str, Any]
    ) -> None:
        for key, other in (("fans", "viewers"), ("fans-of-fans", "fans")):
            await make(client, service, key, {"segment": {"op": "in", "keys": [other]}})
        body = {"name": "viewers", "status": "active", "condition": VIEWED, **change}
        answer = await client.put("/v1/segments/viewers", json=body, headers={"if-match": '"1"'})
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:footfall:problem:segment-in-use")
        assert [e["detail"] for e in answer.json()["errors"]] == ["segment fans", "segment fans-of-fans"]
        assert await members(client, "fans-of-fans") == set(PEOPLE)
        for key in ("fans-of-fans", "fans"):
            assert (await client.delete(f"/v1/segments/{key}", headers={"if-match": '"1"'})).status_code == 204
        await put(client, service, **change)
        assert await members(client, "viewers") == set()


class TestMended:
    async def test_a_quarantine_that_comes_late_leaves_the_version_that_was_mended_meanwhile(
        self, client: httpx.AsyncClient, service: Any, shop: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        boom = {"any": [VIEWED, {"attribute": "a", "op": "eq", "value": "boom"}]}
        await put(client, service, condition=boom)
        bind, real = Attribute.bind, quarantines.quarantine

        def raising(facts: Any, now: int) -> bool:
            raise ZeroDivisionError

        async def late(deps: Any, causes: Any, versions: Any) -> None:
            """Before its turn comes, the merchant saves what mends it, and that serves."""
            monkeypatch.setattr(quarantines, "quarantine", real)
            await put(client, service)
            await real(deps, causes, versions)

        monkeypatch.setattr(quarantines, "quarantine", late)
        monkeypatch.setattr(Attribute, "bind", lambda self, p: raising if p[2] == "boom" else bind(self, p))
        service.deps.rulebook._rules = None
        assert (await shop.give(event(99, who="visitor:h"))).outcomes == {"applied": 1}
        found = (await client.get("/v1/segments/viewers")).json()
        assert (found["live_version"], found["quarantined"]) == (3, None)
        assert await members(client, "viewers") == {*PEOPLE, "v:h"}


class TestExport:
    async def test_a_name_is_one_cell_whatever_is_in_it_and_never_a_formula(
        self, client: httpx.AsyncClient, service: Any, shop: Log
    ) -> None:
        forged = ["c:a,1,event,9\r\nc:forged", 'c:"quoted"', "c:=1+1"]
        formulas = [f"{start}HYPERLINK(1)" for start in "=+-@\t\r"]
        async with service.deps.db.tx() as tx:
            await tx.execute(
                "INSERT INTO membership SELECT unnest($1::text[]), id, $2, 'event', 1 FROM segment",
                [*forged, *formulas], START,
            )  # fmt: skip
        text = (await client.get("/v1/segments/viewers/members.csv")).text
        rows = list(csv.reader(text.splitlines(keepends=True)))
        assert rows[0] == ["profile", "since", "cause", "definition_version"]
        assert {r[0] for r in rows[1:]} == {*PEOPLE, *forged, *(f"'{f}" for f in formulas)}
        assert {tuple(r[1:]) for r in rows[1:]} == {(str(START), "event", "1")}
