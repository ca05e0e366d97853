"""A rule that cannot be evaluated is taken out by name, with those that refer to it; everything beside it goes on."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.clock import ManualClock
from segment_svc import definitions, jobs
from segment_svc.domain import probes
from segment_svc.domain import profile as people
from segment_svc.domain.facts import Facts
from segment_svc.domain.leaves.person import Attribute, Segment
from segment_svc.flows import apply_events, backfill, save_segment, sweep
from segment_svc.telemetry import DEAR
from structlog.testing import capture_logs

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import START, VIEWED, Log, event, make, members, shown

pytestmark = pytest.mark.servers
Breaking = Callable[[], Awaitable[None]]


@pytest.fixture
def log(service: Any) -> Log:
    return Log(service)


@pytest.fixture
def breaking(service: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Once awaited, asking whether an attribute is `boom` raises for everybody who did anything; it did not at save."""
    bind = Attribute.bind

    def broken(self: Any, params: Any) -> Any:
        answer = bind(self, params)

        def asked(facts: Any, now: int) -> bool:
            if params[2] == "boom" and facts.profile.log:
                raise ZeroDivisionError
            return answer(facts, now)

        return asked

    async def begin() -> None:
        monkeypatch.setattr(Attribute, "bind", broken)
        service.deps.rulebook._rules = None  # what was compiled before the version of the code that breaks is not here
        async with service.deps.db.tx() as tx:
            await definitions.publish(tx, [], now=START, after=0)

    return begin


BOOM = {"any": [VIEWED, {"attribute": "a", "op": "eq", "value": "boom"}]}


async def again(client: httpx.AsyncClient, key: str, condition: Any, *, status: str = "active") -> None:
    """Save a second version of a segment."""
    body = {"name": key, "status": status, "condition": condition}
    answer = await client.put(f"/v1/segments/{key}", json=body, headers={"if-match": '"1"'})
    assert answer.status_code == 200, answer.text


class TestQuarantine:
    @pytest.fixture
    async def shop(self, client: httpx.AsyncClient, service: Any, log: Log) -> Log:
        """A rule that will break, one that refers to it, and one that has nothing to do with it; ann is in all that serve."""
        await make(client, service, "boom", BOOM)
        await make(client, service, "not-boom", {"segment": {"op": "not_in", "keys": ["boom"]}})
        await make(client, service, "viewers")
        await log.give(event(1))
        return log

    async def test_a_rule_that_raises_is_taken_out_with_those_that_refer_to_it_and_the_others_go_on(
        self, client: httpx.AsyncClient, shop: Log, breaking: Breaking
    ) -> None:
        await breaking()
        receipt = await shop.give(
            event(2, "identify", {"attributes": {"a": "x"}}, who="customer:c"), event(3, who="customer:c")
        )
        assert receipt.outcomes == {"applied": 2}
        assert await members(client, "viewers") == {"v:ann", "c:c"}
        assert await members(client, "boom") == await members(client, "not-boom") == set()
        found = {s["key"]: s["quarantined"] for s in (await client.get("/v1/segments")).json()["segments"]}
        assert found == {"boom": "ZeroDivisionError", "not-boom": "refers to boom", "viewers": None}
        served = (await client.get("/v1/definitions")).json()["segments"]
        assert [s["key"] for s in served] == ["viewers"]
        why = await client.get("/v1/segments/boom/explain", params={"profile": "v:ann"})
        assert (why.status_code, "quarantined" in why.json()["detail"]) == (409, True)

    async def test_saving_it_again_ends_it(
        self, client: httpx.AsyncClient, service: Any, shop: Log, breaking: Breaking, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await breaking()
        await shop.give(event(2, "identify", {"attributes": {"a": "x"}}))
        assert await members(client, "boom") == set()
        monkeypatch.undo()
        await again(client, "boom", BOOM)
        while await backfill.step(service.deps):
            pass
        assert {s["quarantined"] for s in (await client.get("/v1/segments")).json()["segments"]} == {None}
        assert await members(client, "boom") == {"v:ann"}
        await shop.give(event(4, "login", who="customer:c"))
        assert await members(client, "not-boom") == {"c:c"}

    async def test_a_new_version_that_raises_never_serves_and_the_old_one_goes_on(
        self, client: httpx.AsyncClient, service: Any, shop: Log, breaking: Breaking
    ) -> None:
        await shop.give(event(2, "identify", {"attributes": {"a": "x"}}))
        await again(client, "viewers", BOOM)
        await breaking()
        while await backfill.step(service.deps):
            pass
        found = (await client.get("/v1/segments/viewers")).json()
        assert (found["live_version"], found["quarantined"]) == (1, "ZeroDivisionError")
        assert await members(client, "viewers") == {"v:ann"}

    async def test_and_goes_by_what_it_refers_to_when_that_changes(
        self, client: httpx.AsyncClient, service: Any, shop: Log, breaking: Breaking
    ) -> None:
        await shop.give(event(2, "identify", {"attributes": {"a": "x"}}), event(3, who="visitor:bob"))
        await make(client, service, "user", {"segment": {"op": "in", "keys": ["viewers"]}})
        await again(client, "user", BOOM)
        await breaking()
        await again(client, "viewers", {"attribute": "a", "op": "eq", "value": "x"})
        while await backfill.step(service.deps):
            pass
        found = (await client.get("/v1/segments/user")).json()
        assert (found["live_version"], found["quarantined"]) == (1, "ZeroDivisionError")
        assert await members(client, "viewers") == await members(client, "user") == {"v:ann"}

    async def test_the_sweep_goes_on_too(
        self, client: httpx.AsyncClient, service: Any, shop: Log, breaking: Breaking, clock: ManualClock
    ) -> None:
        week = {"events": {**VIEWED["events"], "window": {"last": "P7D"}}}
        await make(client, service, "week", week)
        await shop.give(event(5, at=START + 1))
        assert await members(client, "week") == {"v:ann"}
        await breaking()
        clock.advance(8 * 86_400_000)
        while await sweep.sweep(service.deps):
            pass
        assert await members(client, "week") == set()

    async def test_a_rule_that_takes_long_for_one_person_stays_and_is_named_once(
        self, client: httpx.AsyncClient, log: Log, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await make(client, service, "viewers")
        monkeypatch.setattr(apply_events, "SLOW_S", -1.0)
        before = DEAR._value.get()
        with capture_logs() as logs:
            await log.give(event(1), event(2, who="visitor:bob"))
        assert [e["rules"] for e in logs if e["event"] == "person_dear"] == [["viewers"]]
        assert DEAR._value.get() == before + 2
        assert await members(client, "viewers") == {"v:ann", "v:bob"}


async def epochs(client: httpx.AsyncClient) -> dict[str, int]:
    """Of which epoch the bits of each live segment are."""
    return {s["key"]: s["epoch"] for s in (await client.get("/v1/definitions")).json()["segments"]}


class TestSaving:
    """What a save tries, it tries before it stands in anybody's way."""

    async def test_what_takes_long_for_somebody_is_not_saved_and_says_so(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probes, "DEAR_S", 0.0)
        assert "it takes over" in await refused(client, VIEWED)

    async def test_filters_and_the_parts_beside_a_request_are_bounded(self, client: httpx.AsyncClient) -> None:
        filters = [{"field": "sku", "value": f"s{i}"} for i in range(50)]
        views = [
            {"events": {"type": "product_view", "where": {"any": filters}, "count": {"op": "gt", "value": i}}}
            for i in range(11)
        ]
        assert "at most 500 filters" in await refused(client, {"any": views})
        inside = [
            {"all": [{"context": "region", "value": f"r{i}"}, {"attribute": f"a{i}", "value": 1}]} for i in range(65)
        ]
        assert "at most 64 parts" in await refused(client, {"any": inside})

    async def test_when_there_are_too_many_segments_the_next_one_is_refused_and_the_others_are_as_they_were(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jobs, "MOST_ATOMS", 2)
        await make(client, service, "one")
        await again(client, "one", VIEWED)
        body = {"key": "two", "name": "n", "status": "active", "condition": VIEWED}
        answer = await client.post("/v1/segments", json=body)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:footfall:problem:segments-full")
        assert [s["key"] for s in (await client.get("/v1/segments")).json()["segments"]] == ["one"]

    async def test_a_bit_that_is_used_again_is_of_another_epoch_and_so_is_every_document_by_then(
        self, client: httpx.AsyncClient, log: Log, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jobs, "MOST_ATOMS", 2)
        await make(client, service, "first")
        await log.give(event(1), event(2, "search", {"query": "q"}, who="visitor:bob"))
        before = await shown(service, "v:ann"), await shown(service, "v:bob")
        assert [(d.epoch, d.bits) for d in before] == [(1, b"\1"), (1, b"")]
        assert (await client.delete("/v1/segments/first", headers={"if-match": '"1"'})).status_code == 204
        await make(client, service, "second")  # the other bit
        assert await epochs(client) == {"second": 1}
        assert (await client.delete("/v1/segments/second", headers={"if-match": '"1"'})).status_code == 204
        await make(client, service, "third", {"events": {"type": "search", "count": {"op": "gte", "value": 1}}})
        assert await epochs(client) == {"third": 2}
        after = await shown(service, "v:ann"), await shown(service, "v:bob")
        assert [(d.epoch, d.bits) for d in after] == [(2, b""), (2, b"\1")]

    async def test_events_go_on_while_a_definition_is_tried(
        self, client: httpx.AsyncClient, log: Log, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await make(client, service, "viewers")
        going, begun = threading.Event(), threading.Event()

        def slow(*_: Any, **__: Any) -> None:
            begun.set()
            assert going.wait(30)

        monkeypatch.setattr(save_segment, "run_probes", slow)
        body = {"key": "slow", "name": "slow", "status": "active", "condition": VIEWED}
        save = asyncio.create_task(client.post("/v1/segments", json=body))
        try:
            await asyncio.to_thread(begun.wait, 30)
            await log.give(event(1))
            assert await members(client, "viewers") == {"v:ann"}
            assert not save.done()
        finally:
            going.set()
        assert (await save).status_code == 201


async def refused(client: httpx.AsyncClient, condition: Any) -> str:
    """Why a definition is not taken."""
    body = {"key": "x", "name": "x", "status": "active", "condition": condition}
    answer = await client.post("/v1/segments", json=body)
    assert answer.status_code == 422, answer.text
    assert (await client.get("/v1/segments/x")).status_code == 404
    return str(answer.json()["errors"][0]["detail"])


class TestReleases:
    """What is stored, by whatever version or hand: it stops nobody else, and saving again mends it."""

    @pytest.fixture
    async def shop(self, client: httpx.AsyncClient, service: Any, log: Log) -> Log:
        await make(client, service, "base")
        await make(client, service, "user", {"segment": {"op": "in", "keys": ["base"]}})
        await make(client, service, "other")
        await log.give(event(1))
        return log

    async def put(self, client: httpx.AsyncClient, service: Any, key: str, condition: Any) -> None:
        version = (await client.get(f"/v1/segments/{key}")).json()["version"]
        body = {"name": key, "status": "active", "condition": condition}
        answer = await client.put(f"/v1/segments/{key}", json=body, headers={"if-match": f'"{version}"'})
        assert answer.status_code == 200, answer.text
        async with asyncio.timeout(30):
            while await backfill.step(service.deps):
                pass

    async def serving(self, client: httpx.AsyncClient) -> set[str]:
        return {s["key"] for s in (await client.get("/v1/definitions")).json()["segments"]}

    @pytest.mark.parametrize(
        "change",
        [
            "body - 'overrides'", "body - 'applies_to'", "'{}'::jsonb", "body || '{\"overrides\": [{}]}'",
            "body || '{\"websites\": 5}'", "body || '{\"condition\": {\"segment\": {\"op\": \"in\", \"keys\": [\"base\"]}}}'",
            "body || '{\"condition\": [1]}'",
        ],
    )  # fmt: skip
    async def test_an_odd_stored_body_is_quarantined_with_its_users_alone(
        self, client: httpx.AsyncClient, service: Any, shop: Log, change: str
    ) -> None:
        async with service.deps.db.tx() as tx:
            await tx.execute(
                f"""UPDATE segment_version v SET body = {change} FROM segment s
                    WHERE s.id = v.segment_id AND s.key = 'base'"""
            )
            await definitions.publish(tx, [], now=START, after=0)
        assert (await shop.give(event(2, who="visitor:bob"))).outcomes == {"applied": 1}
        assert await members(client, "other") == {"v:ann", "v:bob"}
        assert await self.serving(client) == {"other"}
        assert await members(client, "base") == await members(client, "user") == set()

    async def test_a_circle_between_versions_that_serve_is_taken_out_and_mended_by_saving(
        self, client: httpx.AsyncClient, service: Any, shop: Log
    ) -> None:
        async with service.deps.db.tx() as tx:
            await tx.execute(
                """UPDATE segment_version v SET body =
                        jsonb_set(body, '{condition}', '{"segment": {"op": "in", "keys": ["user"]}}')
                    FROM segment s WHERE s.id = v.segment_id AND s.key = 'base'"""
            )
            await definitions.publish(tx, [], now=START, after=0)
        assert (await shop.give(event(2, who="visitor:bob"))).outcomes == {"applied": 1}
        assert await self.serving(client) == {"other"}
        await self.put(client, service, "base", VIEWED)
        assert await self.serving(client) == {"base", "user", "other"}
        assert await members(client, "user") == {"v:ann", "v:bob"}

    async def test_a_shadow_that_raises_leaves_what_serves_as_it_is_and_others_still_go_live(
        self, client: httpx.AsyncClient, service: Any, shop: Log, breaking: Breaking
    ) -> None:
        await shop.give(event(2, "identify", {"attributes": {"a": "x"}}))
        await again(client, "base", BOOM)
        await breaking()
        async with asyncio.timeout(30):
            while await backfill.step(service.deps):
                pass
        assert await self.serving(client) == {"base", "user", "other"}
        assert await members(client, "user") == {"v:ann"}
        await make(client, service, "fresh")
        assert await members(client, "fresh") == {"v:ann"}
        found = {
            s["key"]: (s["live_version"], s["quarantined"])
            for s in (await client.get("/v1/segments")).json()["segments"]
        }
        assert found["base"] == (1, "ZeroDivisionError")
        await self.put(client, service, "base", VIEWED)
        assert (await client.get("/v1/segments/base")).json()["quarantined"] is None

    @pytest.mark.parametrize(("op", "keys", "holds"), [
        ("in", ("a",), True), ("in", ("a", "gone"), True), ("in", ("gone",), False), ("not_in", ("b",), True),
        ("not_in", ("gone",), False), ("not_in", ("b", "gone"), False), ("all", ("a",), True), ("all", ("a", "gone"), False),
    ])  # fmt: skip
    def test_nobody_is_in_or_out_of_what_does_not_serve(self, op: str, keys: tuple[str, ...], holds: bool) -> None:
        facts = Facts(people.empty("visitor"))
        facts.bits = 0b01
        assert Segment({"a": 0, "b": 1}).test((op, keys), facts, 0) is holds

    async def test_what_is_quarantined_can_be_switched_off_and_refused_saves_use_no_number(
        self, client: httpx.AsyncClient, service: Any, shop: Log, breaking: Breaking
    ) -> None:
        for _ in range(5):
            answer = await client.post("/v1/segments", json={"key": "bad", "name": "bad", "condition": {"x": 1}})
            assert answer.status_code == 422
        await make(client, service, "boom", BOOM)
        assert (await client.get("/v1/segments/boom")).json()["id"] == 4
        await breaking()
        await again(client, "boom", BOOM, status="inactive")
