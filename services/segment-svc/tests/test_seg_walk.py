"""The main job on real parts: events in, memberships, documents and facts out."""

from __future__ import annotations

import copy
import re
from datetime import UTC
from typing import Any

import httpx
import pytest
from chassis.clock import ManualClock
from contracts.audience import Audience, decode
from segment_svc import definitions, identities, store
from segment_svc.flows import backfill, sweep

pytestmark = pytest.mark.servers
START = 1_700_000_000_000
DAY = 86_400_000
VIEWS = {"events": {"type": "product_view", "count": {"op": "gt", "value": 3}, "window": {"last": "P7D"}}}


def rfc(ms: int) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


def view(number: int, at: int, subject: str = "visitor:ann") -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "test",
        "type": "product_view",
        "time": rfc(at),
        "subject": subject,
        "data": {"sku": "A", "category": "shoes/running"},
    }


async def save(
    client: httpx.AsyncClient, service: Any, key: str, condition: dict[str, Any], **more: Any
) -> dict[str, Any]:
    body = {"key": key, "name": key, "status": "active", "condition": condition, **more}
    answer = await client.post("/v1/segments", json=body)
    assert answer.status_code == 201, answer.text
    while await backfill.step(service.deps):
        pass
    return answer.json()


async def send(client: httpx.AsyncClient, *events: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post("/v1/events", json={"events": list(events)})
    assert answer.status_code == 202, answer.text
    return answer.json()


async def members(client: httpx.AsyncClient, key: str) -> set[str]:
    answer = (await client.get(f"/v1/segments/{key}/members")).json()
    assert answer["count"] == len(answer["members"])
    return {m["profile"] for m in answer["members"]}


async def read(service: Any, identity: str) -> Audience:
    await service.deps.relay.drain()
    return decode((await service.redis.get(f"aud:{identity}"))[8:])


async def failing(*_: Any, **__: Any) -> None:
    raise OSError("disk")


class TestMembership:
    async def test_a_fourth_view_enters_and_the_window_leaves_at_its_exact_instant(
        self, client: httpx.AsyncClient, service: Any, clock: ManualClock
    ) -> None:
        segment = await save(client, service, "runners", VIEWS)
        await send(client, *(view(i, START - i * 1000) for i in range(3)))
        assert await members(client, "runners") == set()
        await send(client, view(3, START - 3000))
        assert await members(client, "runners") == {"v:ann"}
        clock.set(START - 3000 + 7 * DAY - 1)
        assert await sweep.sweep(service.deps) <= 1
        assert await members(client, "runners") == {"v:ann"}
        clock.advance(1)
        await sweep.sweep(service.deps)
        assert await members(client, "runners") == set()
        why = (await client.get("/v1/segments/runners/explain", params={"profile": "v:ann"})).json()
        assert [t["cause"] for t in why["transitions"]] == ["time", "event"]
        assert why["transitions"][0]["at"] == START - 3000 + 7 * DAY
        assert segment["version"] == 1

    async def test_a_reader_applies_coming_flips_although_nobody_swept(
        self, client: httpx.AsyncClient, service: Any, clock: ManualClock
    ) -> None:
        await save(client, service, "runners", VIEWS)
        await send(client, *(view(i, START - 7 * DAY + 1000 + i) for i in range(4)))
        found = await read(service, "v:ann")
        assert int.from_bytes(found.bits, "little") == 1
        assert [at for at, _ in found.flips] == [START + 1000]

    async def test_a_duplicate_counts_once(self, client: httpx.AsyncClient, service: Any) -> None:
        await save(client, service, "runners", VIEWS)
        receipt = await send(client, *(view(1, START - 1000) for _ in range(5)))
        assert receipt["outcomes"] == {"applied": 1, "duplicate": 4}
        assert await members(client, "runners") == set()

    async def test_a_flip_that_a_duplicate_meets_first_is_recorded_once(
        self, client: httpx.AsyncClient, service: Any, clock: ManualClock
    ) -> None:
        await save(client, service, "runners", VIEWS)
        await send(client, *(view(i, START - i) for i in range(4)))
        clock.advance(7 * DAY)
        assert (await send(client, view(1, START - 1)))["outcomes"] == {"duplicate": 1}
        assert await members(client, "runners") == set()
        await sweep.sweep(service.deps)
        why = (await client.get("/v1/segments/runners/explain", params={"profile": "v:ann"})).json()
        assert [(t["cause"], t["entered"]) for t in why["transitions"]] == [("time", False), ("event", True)]

    async def test_login_brings_the_visitors_history_to_the_customer_and_both_identities_read_it(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await save(client, service, "runners", VIEWS)
        await send(client, *(view(i, START - 1000 - i) for i in range(4)))
        login = {
            "specversion": "1.0",
            "id": "l1",
            "source": "test",
            "type": "login",
            "time": rfc(START),
            "subject": "customer:7",
            "data": {"visitor_id": "ann", "customer_id": "7"},
        }
        await send(client, login)
        assert await members(client, "runners") == {"c:7"}
        assert (await read(service, "v:ann")).bits == (await read(service, "c:7")).bits == b"\x01"
        other = {**login, "id": "l2", "subject": "customer:8", "data": {"visitor_id": "ann", "customer_id": "8"}}
        await send(client, other)
        assert await members(client, "runners") == {"c:7"}

    async def test_a_device_that_changes_hands_shows_the_new_customer_only(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await save(client, service, "runners", VIEWS)
        for i in range(9):  # a batch each: the version of the first customer's document runs ahead
            await send(client, view(i, START - i, "customer:7"))
        login = {**view(0, START), "type": "login", "subject": "customer:7"}
        for number, customer in ((20, "7"), (21, "8")):
            hands = {"subject": f"customer:{customer}", "data": {"visitor_id": "ann", "customer_id": customer}}
            await send(client, {**login, "id": f"l{number}", **hands})
            shown = [(await read(service, f"{name}")).bits for name in ("v:ann", f"c:{customer}")]
            assert shown == ([b"\x01"] * 2 if customer == "7" else [b""] * 2)
        await send(client, view(30, START, "customer:7"))
        assert (await read(service, "c:7")).bits == b"\x01"
        assert (await read(service, "v:ann")).bits == b""
        assert await members(client, "runners") == {"c:7"}

    async def test_a_row_in_memory_that_another_worker_changed_is_not_used(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await save(client, service, "runners", VIEWS)
        await send(client, view(0, START), view(1, START - 1))
        stale = copy.deepcopy(service.deps.recent.take("v:ann"))
        await send(client, view(2, START - 2))
        service.deps.recent.put([stale])
        await send(client, view(3, START - 3))
        assert await members(client, "runners") == {"v:ann"}

    async def test_what_a_failed_batch_did_in_memory_is_forgotten(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await save(client, service, "runners", VIEWS)
        await send(client, *(view(i, START - i) for i in range(2)))
        with monkeypatch.context() as broken:
            broken.setattr(store, "record", failing)
            body = {"events": [view(i, START - i) for i in range(2, 5)]}
            assert (await client.post("/v1/events", json=body)).status_code == 503
        assert (await send(client, view(2, START - 2)))["outcomes"] == {"applied": 1}
        assert await members(client, "runners") == set()

    async def test_a_bad_event_is_refused_with_its_reason_and_the_next_one_is_applied(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        bad = {**view(1, START), "type": "nonsense"}
        ahead = view(2, START + 3 * DAY)
        answer = await send(client, bad, ahead, view(3, START))
        assert [(r["pointer"], r["reason"]) for r in answer["rejected"]] == [
            ("/events/0", "unknown-type"),
            ("/events/1", "time-ahead"),
        ]
        assert answer["outcomes"] == {"applied": 1}


class TestDefinitions:
    async def test_a_new_version_serves_only_when_everybody_was_computed(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        saved = await save(client, service, "runners", VIEWS)
        await send(client, *(view(i, START - i) for i in range(4)), view(9, START, "visitor:bob"))
        loose = {"events": {"type": "product_view", "count": {"op": "gte", "value": 1}}}
        body = {"name": "runners", "status": "active", "condition": loose}
        answer = await client.put("/v1/segments/runners", json=body, headers={"if-match": f'"{saved["version"]}"'})
        assert answer.json()["live_version"] == 1
        assert await members(client, "runners") == {"v:ann"}
        while await backfill.step(service.deps):
            pass
        assert await members(client, "runners") == {"v:ann", "v:bob"}
        why = (await client.get("/v1/segments/runners/explain", params={"profile": "v:bob"})).json()
        assert why["transitions"][0]["cause"] == "definition"

    async def test_a_stored_rule_that_cannot_be_read_has_no_members_and_stops_nobody(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await save(client, service, "runners", VIEWS)
        await save(client, service, "broken", VIEWS)
        await send(client, *(view(i, START - i) for i in range(4)))
        assert await members(client, "broken") == {"v:ann"}
        async with service.deps.db.tx() as tx:
            await tx.execute("""UPDATE segment_version v SET body = jsonb_set(body, '{condition}', '{"gone": 1}')
                FROM segment s WHERE s.id = v.segment_id AND s.key = 'broken'""")
            await definitions.publish(tx, [], now=START, after=0)
        await send(client, *(view(i, START - i, "visitor:bob") for i in range(10, 14)))
        assert await members(client, "runners") == {"v:ann", "v:bob"}
        assert "v:bob" not in await members(client, "broken")

    async def test_a_bad_rule_is_refused_with_a_pointer_and_the_nearest_word(self, client: httpx.AsyncClient) -> None:
        condition = {"all": [{"evnts": {"type": "x"}}]}
        answer = await client.post("/v1/segments", json={"key": "x", "name": "x", "condition": condition})
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:footfall:problem:rule-invalid"
        assert answer.json()["errors"][0]["pointer"] == "/condition/all/0"
        assert "did you mean events?" in answer.json()["errors"][0]["detail"]

    async def test_a_segment_of_segments_follows_in_the_same_pass(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await save(client, service, "runners", VIEWS)
        await save(client, service, "others", {"segment": {"op": "not_in", "keys": ["runners"]}})
        await send(client, *(view(i, START - i) for i in range(3)))
        assert await members(client, "others") == {"v:ann"}
        await send(client, view(3, START - 3))
        assert await members(client, "others") == set()

    async def test_switching_off_empties_the_segment_at_once(self, client: httpx.AsyncClient, service: Any) -> None:
        saved = await save(client, service, "runners", VIEWS)
        await send(client, *(view(i, START - i) for i in range(4)))
        body = {"name": "runners", "status": "inactive", "condition": VIEWS}
        await client.put("/v1/segments/runners", json=body, headers={"if-match": f'"{saved["version"]}"'})
        assert await members(client, "runners") == set()


HOT = {
    "LOAD": (["v:a"], [1]),
    "OWNERS": (["v:a"],),
    "READ": (["v:a"],),
    "UPDATE": (["v:a"], ["m"], [None], [1], [None], [b""], [None], [b""], 1, 1),
    "ENTER": (["v:a"], [1], [1], ["event"], [1]),
    "LEAVE": (["v:a"], [1]),
    "IDENTITIES": (["v:a"],),
    "UNALIAS": (["v:a"], ["c:a"]),
    "CROWD": (["c:a"], 1000),
    "FORGET": (["c:a"], ["v:a"]),
}
STATEMENTS = {
    name: value
    for name, value in {**vars(store), **vars(identities)}.items()
    if name.isupper() and isinstance(value, str)
}
# A name that changes hands is looked for under whomever had it: the one look that asks every shard.
BY = {"UNALIAS": "identity"}


FIRST = "SELECT pg_get_indexdef($1::regclass, 1, true)"  # what an index is ordered by, first of all


def scans(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """(index, the condition it is searched by) of every look into a table; (table, nothing) of one that reads all of it."""
    found = [(plan["Index Name"], plan.get("Index Cond", ""))] if "Index Name" in plan else []
    if plan["Node Type"] == "Seq Scan":
        found = [(plan["Relation Name"], "")]
    return found + [scan for inner in plan.get("Plans", []) for scan in scans(inner)]


class TestSharding:
    @pytest.mark.parametrize("statement", HOT)
    async def test_every_look_of_a_hot_statement_is_by_its_key(self, service: Any, statement: str) -> None:
        async with service.deps.db.tx() as tx:
            await tx.execute("SET LOCAL enable_seqscan = off")
            plan = await tx.fetchval(f"EXPLAIN (FORMAT JSON) {STATEMENTS[statement]}", *HOT[statement])
            looks = scans(plan[0]["Plan"])
            assert looks or statement == "ENTER"
            for index, condition in looks:
                for column in (BY.get(statement, "profile"), await tx.fetchval(FIRST, index)):
                    assert re.search(rf"\({column} = ", condition), looks

    async def test_who_is_due_is_found_in_order_without_looking_at_anybody_else(self, service: Any) -> None:
        async with service.deps.db.tx() as tx:
            await tx.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
            plan = await tx.fetchval(f"EXPLAIN (FORMAT JSON) {store.DUE}", START, 256)
        assert "Sort" not in str(plan)
        assert scans(plan[0]["Plan"]) == [
            ("profile_due", "(GREATEST(next_flip_at, not_before) <= '1700000000000'::bigint)")
        ]

    def test_every_statement_of_the_store_is_looked_at_or_is_none_of_a_batch(self) -> None:
        inserts, of_the_clock, of_a_merchant = {"INSERT", "ALIAS"}, {"DUE", "POSTPONE"}, {"EMPTY"}
        assert STATEMENTS.keys() - {"COLUMNS", "FACTS"} == HOT.keys() | inserts | of_the_clock | of_a_merchant

    async def test_a_stranger_gets_401_and_no_hint(self, service: Any) -> None:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://segment") as client:
            answer = await client.get("/v1/segments/secret")
        assert answer.status_code == 401
        assert answer.json() == {
            "type": "urn:footfall:problem:unauthenticated",
            "title": "Unauthenticated",
            "status": 401,
        }
