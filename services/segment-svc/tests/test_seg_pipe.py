"""Nothing stops the pipe: what cannot be applied is named and set aside, and everything beside it goes on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from chassis import bus
from chassis.bus import MOST_RECORD, Fenced
from chassis.bus_places import Slice
from chassis.clock import ManualClock
from segment_svc import store, wire
from segment_svc.domain import bounds, ruleset
from segment_svc.domain import profile as people
from segment_svc.flows import sweep

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import START, TOPIC, VIEWED, Log, event, make, members, records

pytestmark = pytest.mark.servers
Breaking = Callable[[], Awaitable[None]]


@pytest.fixture
def log(service: Any) -> Log:
    return Log(service)


def poison(monkeypatch: pytest.MonkeyPatch, skus: Sequence[str]) -> None:
    """Folding a view of one of these products raises what nobody thought of; * is any product."""
    fold = people.fold

    def broken(profile: Any, activity: Any, now: int) -> Any:
        if b"sku" in activity.props and ("*" in skus or any(s.encode() in activity.props for s in skus)):
            raise ZeroDivisionError
        return fold(profile, activity, now)

    monkeypatch.setattr(people, "fold", broken)


class TestRecords:
    @pytest.mark.parametrize(
        "bad",
        [
            event(1, "custom", {"name": "x", "props": {"n": 12345678901234567890123456}}),
            event(1, "add_to_cart", {"item": {"sku": "A", "quantity": "--5"}}),
            event(1, "custom", {"name": "x", "props": {"deep": [[[[[[[[[[[[]]]]]]]]]]]]}}),
            event(1, "identify", {"attributes": {"n" * 500: 1}}),
            {**event(1), "specversion": "9.9"},
            None,
            b"\xff" * 10,
            b"[" * 10_000,
        ],
    )
    async def test_a_bad_record_is_one_dead_letter_and_the_next_one_is_applied(
        self, client: httpx.AsyncClient, service: Any, log: Log, bad: Any
    ) -> None:
        await make(client, service, "viewers")
        receipt = await log.give(event(2, who="visitor:bob"), bad, event(3))
        assert receipt.outcomes == {"applied": 2}
        assert [offset for _, offset in await log.reasons()] == [b"1"]
        assert await members(client, "viewers") == {"v:ann", "v:bob"}
        assert await log.place() == 3

    async def test_headers_without_a_value_stop_nothing_and_reach_the_dead_letter(self, service: Any, log: Log) -> None:
        odd = records(b"{", first=0)[0]._replace(headers=(("content-type", None), ("x", None)), key=None)
        await log.give(event(1))
        step = Slice(TOPIC, 0, 1, 2, [odd._replace(offset=1)])
        await log.ingest([step])
        letter = (await log.letters())[0]
        assert (letter.key, letter.value, dict(letter.headers)["x"]) == (None, b"{", None)

    async def test_a_decoder_that_breaks_is_about_its_record_only(
        self, service: Any, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decode = service.deps.codec.decode

        def breaks(value: bytes, headers: Any) -> Any:
            if b"e7" in value:
                raise MemoryError
            return decode(value, headers)

        monkeypatch.setattr(service.deps.codec, "decode", breaks)
        assert (await log.give(event(6), event(7), event(8))).outcomes == {"applied": 2}
        assert await log.reasons() == [(b"unreadable", b"1")]

    async def test_a_record_as_large_as_a_broker_takes_is_cut_to_be_dead_lettered(self, service: Any, log: Log) -> None:
        huge = b"x" * 1_048_500
        await log.give(huge, event(1))
        letter = (await log.letters())[0]
        assert letter.size <= MOST_RECORD
        assert dict(letter.headers)["dlq-cut"] == b"%d" % records(huge)[0].size
        assert huge.startswith(letter.value or b"-")

    @pytest.mark.parametrize(
        "large",
        [
            {"key": bytes(1 << 20)},
            {"headers": (("a", bytes(1 << 20)),)},
            {"headers": (("\u20ac" * 900_000, b""),)},
            {"headers": tuple((f"\u20ac{n}" * 20, b"") for n in range(20_000))},
        ],
    )
    def test_a_letter_is_one_that_a_broker_takes_whatever_of_a_record_is_large(self, large: Any) -> None:
        record = records(b"x")[0]._replace(**large)
        [payload] = wire.dead_letters([wire.Dead(record, "reason", "detail")])
        [letter] = bus.unpack(payload)
        headers = sum(len(name.encode()) + len(value or b"") for name, value in letter.headers)
        assert headers + len(letter.key or b"") + len(letter.value or b"") <= MOST_RECORD
        assert {"dlq-reason", "dlq-detail", "dlq-offset", "dlq-cut"} <= dict(letter.headers).keys()

    async def test_an_event_refused_at_a_bound_of_what_is_kept_is_not_lost(self, service: Any, log: Log) -> None:
        await log.give(*(event(i, at=START - i) for i in range(bounds.LIMIT + 1)))
        receipt = await log.give(event(9999, at=START - 10_000_000))
        assert receipt.outcomes == {"too_old": 1}
        assert (await log.reasons())[-1][0] == b"too-old"
        purposes = [{f"{i}-{n}": True for n in range(40)} for i in range(2)]
        receipt = await log.give(
            *(event(20_000 + i, "consent_changed", {"purposes": p}) for i, p in enumerate(purposes))
        )
        assert receipt.outcomes == {"applied": 1, "too_many_names": 1}
        letter = (await log.letters())[-1]
        assert dict(letter.headers)["dlq-reason"] == b"too-many-names"
        assert b"20001" in (letter.value or b"")


class TestPoison:
    @pytest.mark.parametrize("at", [0, 31, 63])
    async def test_one_event_that_raises_is_found_and_set_aside_wherever_it_stands(
        self, client: httpx.AsyncClient, service: Any, log: Log, monkeypatch: pytest.MonkeyPatch, at: int
    ) -> None:
        poison(monkeypatch, ["POISON"])
        await make(client, service, "viewers")
        batch = [event(i, data={"sku": "POISON" if i == at else "A"}, who=f"visitor:{i}") for i in range(64)]
        assert (await log.give(*batch)).outcomes == {"applied": 63}
        assert await log.reasons() == [(b"poison", b"%d" % at)]
        assert await log.place() == 64
        assert len(await members(client, "viewers")) == 63
        assert (await client.get("/v1/profiles/v:rehearsal")).status_code == 404

    async def test_one_person_of_whom_every_event_raises_stops_nobody_else(
        self, service: Any, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        poison(monkeypatch, ["POISON"])
        for i in range(30):
            await log.give(event(i, data={"sku": "POISON"}))
        assert (await log.give(event(100))).outcomes == {"applied": 1}
        assert [reason for reason, _ in await log.reasons()] == [b"poison"] * 30

    async def test_when_even_a_harmless_event_fails_nothing_is_dead_lettered_and_nothing_skipped(
        self, service: Any, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await log.give(event(0))

        async def broken(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as ours:
            ours.setattr(store, "save", broken)
            with pytest.raises(ZeroDivisionError):
                await log.give(event(1), event(2))
        assert (await log.letters(), await log.place()) == ([], 1)
        assert (await log.give(event(1), event(2))).outcomes == {"applied": 2}

    @pytest.mark.parametrize(
        "error", [asyncpg.DiskFullError("full"), asyncpg.DeadlockDetectedError("x"), ConnectionError()]
    )
    async def test_what_passes_is_never_blamed_on_an_event(
        self, service: Any, log: Log, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        save = store.save

        async def away(tx: Any, rows: Any, *, now: int) -> None:
            if any(row.key == "v:ann" for row in rows):
                raise error
            await save(tx, rows, now=now)

        monkeypatch.setattr(store, "save", away)
        with pytest.raises(type(error)):
            await log.give(event(1))
        assert await log.letters() == []

    async def test_a_batch_that_somebody_else_took_is_left_alone(self, service: Any, log: Log) -> None:
        await log.give(event(0), event(1))
        with pytest.raises(Fenced):
            await log.ingest([Slice(TOPIC, 0, 0, 1, records(event(5)))])
        assert await log.place() == 2

    async def test_over_http_it_is_named_and_the_others_are_applied(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        poison(monkeypatch, ["POISON"])
        batch = [event(1), event(2, data={"sku": "POISON"}), event(3)]
        answer = (await client.post("/v1/events", json={"events": batch})).json()
        assert answer["outcomes"] == {"applied": 2}
        assert [(r["pointer"], r["reason"]) for r in answer["rejected"]] == [("/events/1", "poison")]

    async def test_half_a_character_is_no_json(self, client: httpx.AsyncClient) -> None:
        body = b'{"events": [{"id": "\\ud800"}]}'
        answer = await client.post("/v1/events", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:footfall:problem:invalid-request")


class TestStored:
    async def test_a_person_whose_state_cannot_be_read_stops_nobody_else(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        week = {"events": {**VIEWED["events"], "window": {"last": "P7D"}}}
        await make(client, service, "week", week)
        await log.give(event(1), event(2, who="visitor:bob"), event(3, who="visitor:zoe"))
        async with service.deps.db.tx() as tx:
            await tx.execute("UPDATE profile SET state = 'x', stamp = stamp # 1 WHERE profile = 'v:bob'")
        receipt = await log.give(event(4), event(5, who="visitor:bob"), event(6, who="visitor:zoe"))
        assert receipt.outcomes == {"applied": 2}
        assert await log.reasons() == [(b"poison", b"4")]
        await make(client, service, "viewers")
        assert await members(client, "viewers") == {"v:ann", "v:zoe"}
        assert (await client.post("/v1/segments/preview", json={"condition": VIEWED})).json()["matched"] == 2
        for path in ("/v1/profiles/v:bob", "/v1/segments/week/explain?profile=v:bob"):
            assert (await client.get(path)).json()["type"] == "urn:footfall:problem:profile-unreadable"
        clock.advance(8 * 86_400_000)
        monkeypatch.setattr(sweep, "BATCH", 1)  # one of them is a whole batch
        async with asyncio.timeout(20):
            while await sweep.sweep(service.deps):
                pass
        assert await members(client, "week") == {"v:bob"}

    async def test_a_state_of_a_newer_version_waits_for_who_can_read_it(
        self, client: httpx.AsyncClient, service: Any, log: Log
    ) -> None:
        await make(client, service, "week", {"events": {**VIEWED["events"], "window": {"last": "P7D"}}})
        await log.give(event(1))
        newer = bytes([people.STATE_VERSION[0] + 1])
        async with service.deps.db.tx() as tx:
            await tx.execute("UPDATE profile SET state = $1 || substr(state, 2), stamp = stamp # 1", newer)
        with pytest.raises(people.NewerState):
            await log.give(event(2))
        assert (await log.letters(), await log.place()) == ([], 1)
        async with service.deps.db.tx() as tx:
            await tx.execute("UPDATE profile SET state = $1 || substr(state, 2)", people.STATE_VERSION)
        assert (await log.give(event(2))).outcomes == {"applied": 1}

    async def test_one_person_who_cannot_be_evaluated_holds_up_neither_sweep_nor_backfill(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await make(client, service, "week", {"events": {**VIEWED["events"], "window": {"last": "P7D"}}})
        await log.give(event(1), event(2, who="visitor:bob"))
        clock.advance(8 * 86_400_000)
        timeline = ruleset.RuleSet._timeline

        def broken(self: Any, program: Any, profile: Any, now: int, **more: Any) -> Any:
            if more.get("key") == "v:bob":
                raise ZeroDivisionError
            return timeline(self, program, profile, now, **more)

        with monkeypatch.context() as patch:
            patch.setattr(ruleset.RuleSet, "_timeline", broken)
            assert await sweep.sweep(service.deps) == 2
            assert await sweep.sweep(service.deps) == 0
            assert await members(client, "week") == {"v:bob"}
            async with asyncio.timeout(20):
                await make(client, service, "viewers")
            assert await members(client, "viewers") == {"v:ann"}
        clock.advance(3_600_000)
        await sweep.sweep(service.deps)
        assert await members(client, "week") == set()
