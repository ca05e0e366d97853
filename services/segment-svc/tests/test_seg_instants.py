"""When people leave, whoever was away: every move at its own instant, and nobody is waited for."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.clock import ManualClock
from segment_svc import store
from segment_svc.domain import profile as people
from segment_svc.domain.ruleset import RuleSet
from segment_svc.flows import backfill, sweep

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import START, VIEWED, Log, event, make, members, shown

pytestmark = pytest.mark.servers
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
VIP = {"attribute": "vip", "op": "eq", "value": "yes"}
HERE = {"all": [{"context": "region", "value": "north"}, VIEWED]}
Away = Callable[[bool], Awaitable[None]]
WEEK = {"events": {**VIEWED["events"], "window": {"last": "P7D"}}}


@pytest.fixture
def log(service: Any) -> Log:
    return Log(service)


async def moves(client: httpx.AsyncClient, key: str, who: str = "v:ann") -> list[tuple[bool, str, int]]:
    """(entered, cause, epoch ms), oldest first."""
    found = (await client.get(f"/v1/segments/{key}/explain", params={"profile": who})).json()["transitions"]
    return [(t["entered"], t["cause"], t["at"]) for t in reversed(found)]


async def written_by(service: Any, version: int, like: str) -> None:
    """The states of some people are of another version of the service."""
    async with service.deps.db.tx() as tx:
        change = "UPDATE profile SET state = $1 || substr(state, 2), stamp = stamp # 1 WHERE profile LIKE $2"
        await tx.execute(change, bytes([version]), like)


class TestOutage:
    async def test_who_leaves_while_no_worker_runs_left_at_the_instant_however_much_else_changed_in_between(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        day = {"type": "product_view", "window": {"last": "P1D"}}
        await make(client, service, "busy", {"events": {**day, "count": {"op": "gte", "value": 1}}})
        even = [{"events": {**day, "count": {"op": "eq", "value": n}}} for n in range(2, 100, 2)]
        await make(client, service, "even", {"any": even})
        await log.give(*(event(i, at=START - (99 - i) * 60_000) for i in range(100)))
        clock.set(START + 3 * DAY)
        while await sweep.sweep(service.deps):
            pass
        assert (await moves(client, "busy"))[1:] == [(False, "time", START + DAY)]
        async with service.deps.db.tx() as tx:
            found = await tx.fetch("""SELECT t.at, t.entered FROM transition t JOIN segment s ON s.id = t.segment_id
                WHERE s.key = 'even' ORDER BY t.at""")
        # Each minute one view is gone; 98 left is the first number that counts, and then every other one.
        wanted = [(START + DAY - 60_000 * n, n % 2 == 0) for n in range(98, 0, -1)]
        assert [(m["at"], m["entered"]) for m in found] == wanted
        at = {"profile": "v:ann", "at": START + DAY + HOUR}
        assert (await client.get("/v1/segments/busy/explain", params=at)).json()["member_at"] is False

    async def test_an_event_that_comes_after_the_outage_first_finds_the_flips_at_their_instants_too(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await make(client, service, "week", WEEK)
        await log.give(event(1))
        clock.set(START + 20 * DAY)
        await log.give(event(2, at=START + 20 * DAY))
        assert (await moves(client, "week"))[1:] == [
            (False, "time", START + 7 * DAY),
            (True, "event", START + 20 * DAY),
        ]


class TestPostponed:
    """People this worker cannot evaluate: they are looked at again in an hour, and hold up nobody."""

    async def test_states_of_a_newer_version_do_not_keep_the_sweep_from_who_is_behind_them(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sweep, "BATCH", 4)
        await make(client, service, "week", WEEK)
        await log.give(*(event(i, who=f"visitor:n{i}") for i in range(4)))
        clock.advance(5000)
        await log.give(event(9, who="visitor:zoe", at=START + 5000))
        await written_by(service, people.STATE_VERSION[0] + 1, "v:n%")
        clock.advance(8 * DAY)
        assert [await sweep.sweep(service.deps) for _ in range(3)] == [4, 1, 0]
        assert "v:zoe" not in await members(client, "week")

    @pytest.mark.parametrize("version", [people.STATE_VERSION[0] + 1, 99])
    async def test_who_can_be_read_again_left_at_the_instant_and_is_found_within_an_hour(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, version: int
    ) -> None:
        await make(client, service, "week", WEEK)
        await log.give(event(1))
        await written_by(service, version, "v:ann")
        clock.advance(8 * DAY)
        assert await sweep.sweep(service.deps) == 1
        await written_by(service, people.STATE_VERSION[0], "v:ann")
        clock.advance(HOUR - 1)
        assert await sweep.sweep(service.deps) == 0
        clock.advance(1)
        assert await sweep.sweep(service.deps) == 1
        assert await members(client, "week") == set()
        assert (await moves(client, "week"))[1:] == [(False, "time", START + 7 * DAY)]

    async def test_an_event_within_the_hour_finds_the_flip_at_its_instant(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await make(client, service, "week", WEEK)
        await log.give(event(1))
        await written_by(service, people.STATE_VERSION[0] + 1, "v:ann")
        clock.advance(8 * DAY)
        await sweep.sweep(service.deps)
        await written_by(service, people.STATE_VERSION[0], "v:ann")
        await log.give(event(2, "page_view", at=START + 8 * DAY))
        assert (await moves(client, "week"))[1:] == [(False, "time", START + 7 * DAY)]
        # What was put off is over: the next flip is not kept waiting.
        await log.give(event(3, at=START + DAY + 1000))
        clock.advance(1000)
        await sweep.sweep(service.deps)
        assert (await moves(client, "week"))[-1] == (False, "time", START + 8 * DAY + 1000)

    async def test_who_a_backfill_could_not_read_is_in_the_new_segment_an_hour_after_they_can_be_read(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await log.give(event(1))
        await written_by(service, people.STATE_VERSION[0] + 1, "v:ann")
        await make(client, service, "viewers")
        assert await members(client, "viewers") == set()
        await written_by(service, people.STATE_VERSION[0], "v:ann")
        clock.advance(HOUR)
        await sweep.sweep(service.deps)
        assert await members(client, "viewers") == {"v:ann"}

    async def test_what_cannot_be_read_is_said_and_left_out_of_a_preview(
        self, client: httpx.AsyncClient, service: Any, log: Log
    ) -> None:
        await make(client, service, "viewers")
        await log.give(event(1), event(2, who="visitor:bob"))
        await written_by(service, people.STATE_VERSION[0] + 1, "v:bob")
        for path in ("/v1/profiles/v:bob", "/v1/segments/viewers/explain?profile=v:bob"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:footfall:problem:profile-newer")
        answer = await client.post("/v1/events", json={"events": [event(3, who="visitor:bob")]})
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:footfall:problem:profile-newer")
        preview = await client.post("/v1/segments/preview", json={"condition": VIEWED})
        assert (preview.status_code, preview.json()["matched"], preview.json()["sampled"]) == (200, 1, 1)


class TestLeftOut:
    """Whoever a backfill could not evaluate neither enters nor leaves by it, and is where they belong an hour after it can."""

    @pytest.fixture(params=["of a newer version", "raises"])
    def away(self, service: Any, request: Any, monkeypatch: pytest.MonkeyPatch) -> Away:
        """Whether ann cannot be evaluated from now on."""
        timeline = RuleSet._timeline

        def broken(self: Any, program: Any, profile: Any, now: int, **more: Any) -> Any:
            if more.get("key") == "v:ann":
                raise ZeroDivisionError
            return timeline(self, program, profile, now, **more)

        async def set_away(is_away: bool) -> None:
            if request.param == "raises":
                monkeypatch.setattr(RuleSet, "_timeline", broken if is_away else timeline)
            else:
                await written_by(service, people.STATE_VERSION[0] + is_away, "v:ann")

        return set_away

    @pytest.fixture
    async def shop(self, client: httpx.AsyncClient, service: Any, log: Log) -> Log:
        await make(client, service, "viewers")
        await make(client, service, "doomed")
        await make(client, service, "here", HERE)
        await log.give(event(1), event(2, who="visitor:bob"))
        return log

    async def test_they_stay_in_what_is_only_planned_anew(
        self, client: httpx.AsyncClient, service: Any, shop: Log, clock: ManualClock, away: Away
    ) -> None:
        await away(True)
        for key, condition in (("viewers", VIEWED), ("here", HERE)):
            await put(client, service, key, condition)
            assert await members(client, "viewers") == {"v:ann", "v:bob"}
            assert await bits_in(service, "viewers") == await bits_in(service, "here") == {True}
        await away(False)
        clock.advance(HOUR)
        await sweep.sweep(service.deps)
        assert await members(client, "viewers") == {"v:ann", "v:bob"}
        assert await bits_in(service, "viewers") == await bits_in(service, "here") == {True}
        assert await moves(client, "viewers") == [(True, "event", START)]

    async def test_they_leave_what_they_match_no_more_once_they_can_be_evaluated(
        self, client: httpx.AsyncClient, service: Any, shop: Log, clock: ManualClock, away: Away
    ) -> None:
        await away(True)
        await put(client, service, "viewers", {"events": {**VIEWED["events"], "count": {"op": "gte", "value": 2}}})
        assert await members(client, "viewers") == {"v:ann"}
        await away(False)
        clock.advance(HOUR)
        await sweep.sweep(service.deps)
        assert await members(client, "viewers") == set()
        assert await bits_in(service, "viewers") == {False}
        assert [move[:2] for move in await moves(client, "viewers")] == [(True, "event"), (False, "time")]

    @pytest.mark.parametrize("condition", [VIP, {"all": [{"context": "region", "value": "north"}, VIP]}])
    async def test_a_bit_of_a_segment_that_is_gone_lets_them_into_none(
        self, client: httpx.AsyncClient, service: Any, shop: Log, clock: ManualClock, away: Away, condition: Any
    ) -> None:
        await away(True)
        answer = await client.delete("/v1/segments/doomed", headers={"if-match": '"1"'})
        assert answer.status_code == 204, answer.text
        await make(client, service, "vips", condition)
        assert await bits_in(service, "vips") == {False}
        await away(False)
        assert await moves(client, "vips") == []
        await shop.give(event(3, "identify", {"attributes": {"vip": "yes"}}))
        assert await bits_in(service, "vips") == {True}
        assert await moves(client, "vips") == ([(True, "event", START)] if condition == VIP else [])

    async def test_a_segment_that_gets_a_list_begins_with_nobody_of_them_on_it(
        self, client: httpx.AsyncClient, service: Any, shop: Log, clock: ManualClock, away: Away
    ) -> None:
        await away(True)
        await put(client, service, "here", VIEWED)
        assert await members(client, "here") == {"v:bob"}
        assert await bits_in(service, "here") == {False}
        await away(False)
        clock.advance(HOUR)
        await sweep.sweep(service.deps)
        assert await members(client, "here") == {"v:ann", "v:bob"}


async def put(client: httpx.AsyncClient, service: Any, key: str, condition: Any) -> None:
    """Save the first version of a segment again, and let it go live."""
    body = {"name": key, "description": "anew", "status": "active", "condition": condition}
    answer = await client.put(f"/v1/segments/{key}", json=body, headers={"if-match": '"1"'})
    assert answer.status_code == 200, answer.text
    while await backfill.step(service.deps):
        pass


async def bits_in(service: Any, key: str) -> set[bool]:
    """What the document readers have of ann says of the bits of a segment that serves."""
    async with service.deps.db.tx() as tx:
        atoms = await tx.fetchval(
            "SELECT p.atoms FROM plan p JOIN segment s ON s.id = p.segment_id WHERE s.key = $1 AND p.live", key
        )
    found = await shown(service, "v:ann")
    return {
        bool(int.from_bytes(bits, "little") >> a & 1)
        for bits in (found.bits, *dict(found.flips).values())
        for a in atoms
    }


class TestAhead:
    async def test_a_document_is_written_again_well_before_it_stops_covering(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await make(client, service, "week", WEEK)
        await log.give(event(1))
        before = await shown(service, "v:ann")
        assert (before.flips, before.covered_until) == ((), START + 7 * DAY)
        clock.set(START + 7 * DAY - HOUR - 1)
        assert await sweep.sweep(service.deps) == 0
        clock.advance(1)
        assert await sweep.sweep(service.deps) == 1
        assert [at for at, _ in (await shown(service, "v:ann")).flips] == [START + 7 * DAY]

    async def test_whoever_has_more_to_come_than_a_document_holds_is_looked_at_when_it_comes_and_not_before(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        day = {**VIEWED["events"], "window": {"last": "P1D"}}
        for n in range(1, 11):
            await make(client, service, f"s{n}", {"events": {**day, "count": {"op": "gte", "value": n}}})
        first = START - DAY + 20 * MINUTE
        await log.give(*(event(n, at=first + n * MINUTE) for n in range(10)))
        assert len((await shown(service, "v:ann")).flips) == 8
        for early in (1, MINUTE, 20 * MINUTE - 1):
            clock.set(START + early)
            assert await sweep.sweep(service.deps) == 0
        clock.advance(1)
        assert await sweep.sweep(service.deps) == 1
        assert len((await shown(service, "v:ann")).flips) == 8
        # A swap waits for who was due when it came to that, however often people are due.
        due = backfill.sweep

        async def slow(*args: Any, **more: Any) -> int:
            clock.advance(MINUTE)
            return await due(*args, **more)

        monkeypatch.setattr(backfill, "sweep", slow)
        await make(client, service, "other")
        assert clock.now_ms() <= START + 23 * MINUTE
        assert await members(client, "other") == {"v:ann"}

    async def test_who_waits_for_an_event_dated_ahead_is_looked_at_when_it_is_due_and_not_before(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await make(client, service, "week", WEEK)
        await make(client, service, "twice", {"events": {**VIEWED["events"], "count": {"op": "gte", "value": 2}}})
        due = START + HOUR // 2
        await log.give(event(1, at=due), event(2, at=due + 7))
        found = await shown(service, "v:ann")
        assert (found.flips, found.covered_until) == ((), due)
        clock.set(due - 1)
        assert await sweep.sweep(service.deps) == 0
        clock.set(due + 3 * HOUR)  # nobody looked in time
        assert await sweep.sweep(service.deps) == 1
        assert await moves(client, "week") == [(True, "time", due)]
        assert await moves(client, "twice") == [(True, "time", due + 7)]
        assert (await shown(service, "v:ann")).covered_until == due + 7 + 7 * DAY

    @pytest.mark.parametrize(("age", "cause"), [(HOUR, "event"), (HOUR + 1, "late_data")])
    async def test_an_event_of_over_an_hour_ago_moves_people_as_late_data(
        self, client: httpx.AsyncClient, service: Any, log: Log, age: int, cause: str
    ) -> None:
        await make(client, service, "week", WEEK)
        await log.give(event(1, at=START - age))
        assert await moves(client, "week") == [(True, cause, START)]


class TestMemory:
    def test_the_rows_in_memory_are_those_touched_last_within_the_bytes_given(self) -> None:
        rows = [store.Row(f"v:{i}", "main", people.empty("visitor"), size=500) for i in range(50)]
        recent = store.Recent(most_bytes=20_000)
        recent.put(rows[:5])
        for row in rows[5:]:
            recent.put([row])
            recent.put([rows[0]])
        kept = [row.key for row in rows if recent.take(row.key) is not None]
        assert kept == ["v:0", "v:46", "v:47", "v:48", "v:49"]
        recent.put(rows)
        assert len([row for row in rows if recent.take(row.key)]) == len(kept)
