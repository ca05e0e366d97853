"""Clocks of machines that differ: nobody's history goes back, and it ends with what they are."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis import bus
from chassis.clock import SKEW_MS, ManualClock
from chassis.documents import FACTS
from contracts import topics
from msgspec.json import decode
from segment_svc import definitions
from segment_svc.flows import backfill, sweep

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import START, VIEWED, Log, event, make

pytestmark = pytest.mark.servers
DAY, AHEAD = 86_400_000, 400
VIPS, RETAIL = ({"group": {"op": "in", "values": [name]}} for name in ("vip", "retail"))
WEEK = {"events": {**VIEWED["events"], "window": {"last": "P7D"}}}
KEYS = {"vips": VIPS, "week": WEEK}


@pytest.fixture
def log(service: Any) -> Log:
    return Log(service)


def joins(number: int, group: str, at: int = START, who: str = "customer:ann") -> Any:
    return event(number, "group_assigned", {"group": group}, at=at, who=who)


async def history(service: Any) -> dict[tuple[str, int], list[tuple[int, bool]]]:
    """(epoch ms, entered) per person and segment, in the order of the instants, and of the moves within one."""
    async with service.deps.db.tx() as tx:
        rows = await tx.fetch("SELECT profile, segment_id, at, entered FROM transition ORDER BY at, id")
    found: dict[tuple[str, int], list[tuple[int, bool]]] = {}
    for profile, segment, at, entered in rows:
        found.setdefault((profile, segment), []).append((at, entered))
    return found


async def sound(service: Any) -> None:
    """Everybody enters and leaves in turns, history and facts alike, and history ends with what `membership` says."""
    said = await history(service)
    async with service.deps.db.tx() as tx:
        inside = {tuple(r) for r in await tx.fetch("SELECT profile, segment_id FROM membership")}
        rows = await tx.fetch("SELECT payload FROM outbox WHERE channel = $1 ORDER BY id", FACTS)
        names = dict(await tx.fetch("SELECT key, id FROM segment"))
    told: dict[tuple[str, int], list[tuple[int, bool]]] = {}
    for record in (r for row in rows for r in bus.unpack(row["payload"]) if r.topic == topics.SEGMENT_MEMBERSHIP):
        fact = decode(record.value or b"")["data"]
        told.setdefault((fact["profile"], names[fact["segment"]]), []).append((int(fact["atMs"]), fact["entered"]))
    assert told == said, "in the order in which it was done"
    for moves in said.values():
        assert [entered for _, entered in moves] == [i % 2 == 0 for i in range(len(moves))]
    assert {who for who, moves in said.items() if moves[-1][1]} == inside


async def put(client: httpx.AsyncClient, service: Any, key: str, status: str, condition: Any = None) -> None:
    found = (await client.get(f"/v1/segments/{key}")).json()
    body = {"name": key, "status": status, "condition": condition or KEYS[key]}
    answer = await client.put(f"/v1/segments/{key}", json=body, headers={"if-match": f'"{found["version"]}"'})
    assert answer.status_code == 200, answer.text
    while await backfill.step(service.deps):
        pass


class TestBehind:
    @pytest.mark.parametrize("how", ["event", "condition"])
    async def test_who_is_taken_out_by_a_clock_behind_leaves_after_having_come(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, how: str
    ) -> None:
        await make(client, service, "vips", VIPS)
        clock.set(START + AHEAD)
        await log.give(joins(1, "vip"))
        clock.set(START + 20)
        if how == "event":
            await log.give(joins(2, "retail", START + 20))
        else:
            await put(client, service, "vips", "active", RETAIL)
        await sound(service)
        why = (await client.get(f"/v1/segments/vips/explain?profile=c:ann&at={START + DAY}")).json()
        assert (why["member_at"], [t["entered"] for t in why["transitions"]]) == (False, [False, True])

    async def test_who_left_by_a_clock_ahead_is_not_let_in_again(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await make(client, service, "week", WEEK)
        await log.give(event(1))
        clock.set(START + 7 * DAY + AHEAD)
        assert await sweep.sweep(service.deps) == 1
        clock.set(START + 7 * DAY - 20)
        await log.give(event(2, "page_view", at=START + 7 * DAY - 20))
        assert [moves for moves in (await history(service)).values()] == [[(START, True), (START + 7 * DAY, False)]]

    @pytest.mark.parametrize("first", ["inactive", "active"])
    async def test_everybody_moves_after_what_they_did_and_before_what_they_do(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, first: str
    ) -> None:
        await make(client, service, "vips", VIPS)
        await log.give(joins(0, "vip", who="customer:zed"))
        if first == "active":
            await put(client, service, "vips", "inactive")
        clock.set(START + AHEAD)
        await log.give(joins(1, "vip"))
        await put(client, service, "vips", first)
        clock.set(START + 20)
        await put(client, service, "vips", "inactive" if first == "active" else "active")
        await log.give(joins(2, "retail", START + 20), joins(3, "retail", START + 20, who="customer:zed"))
        await sound(service)

    @pytest.mark.parametrize("how", ["event", "off"])
    async def test_a_swap_by_a_clock_ahead_is_before_what_follows_it(
        self,
        client: httpx.AsyncClient,
        service: Any,
        log: Log,
        clock: ManualClock,
        monkeypatch: pytest.MonkeyPatch,
        how: str,
    ) -> None:
        await log.give(joins(0, "vip"))
        swap = backfill.swap

        async def ahead(*args: Any) -> None:
            clock.advance(AHEAD)
            await swap(*args)
            clock.advance(20 - AHEAD)

        with monkeypatch.context() as patch:
            patch.setattr(backfill, "swap", ahead)
            await make(client, service, "vips", VIPS)
        if how == "event":
            await log.give(joins(1, "retail", START + 20))
        else:
            await put(client, service, "vips", "inactive")
        assert [entered for moves in (await history(service)).values() for _, entered in moves] == [True, False]
        await sound(service)

    async def test_a_swap_during_which_the_clock_is_set_back_ends(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await make(client, service, "week", WEEK)
        await log.give(event(1))
        alone, swap = definitions.alone, backfill.swap

        async def back(tx: Any, by: ManualClock) -> int:
            now = await alone(tx, by)
            clock.set(START + 7 * DAY - 500)
            return now

        async def due(*args: Any) -> None:
            clock.set(START + 7 * DAY + 500)
            monkeypatch.setattr(definitions, "alone", back)
            async with asyncio.timeout(20):
                await swap(*args)

        monkeypatch.setattr(backfill, "swap", due)
        await make(client, service, "vips", VIPS)
        assert [moves for moves in (await history(service)).values()] == [[(START, True), (START + 7 * DAY, False)]]

    async def test_a_clock_that_is_wrong_by_an_hour_takes_nobody_along(
        self, client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock
    ) -> None:
        await make(client, service, "vips", VIPS)
        clock.set(START + 3_600_000)
        await log.give(joins(1, "retail"))
        clock.set(START + 20)
        await log.give(joins(2, "vip"), joins(3, "vip", who="customer:zed"))
        assert {at for moves in (await history(service)).values() for at, _ in moves} == {START + 20 + SKEW_MS}


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_done_by_machines_whose_clocks_differ_history_ends_with_what_is(
    client: httpx.AsyncClient, service: Any, log: Log, clock: ManualClock, seed: int
) -> None:
    chance = random.Random(seed)
    for key, condition in KEYS.items():
        await make(client, service, key, condition)
    now, active = START, dict.fromkeys(KEYS, True)
    for number in range(60):
        now += chance.choice([0, 10, 200, DAY])
        clock.set(now + chance.choice([0, 150, AHEAD]))
        who = f"{chance.choice(['customer', 'visitor'])}:{chance.choice('ab')}"
        match chance.randrange(6):
            case 0 if chance.random() < 0.4:
                active["vips"] = True
                await put(client, service, "vips", "active", chance.choice([VIPS, RETAIL]))
            case 0:
                key = chance.choice(list(KEYS))
                active[key] = not active[key]
                await put(client, service, key, "active" if active[key] else "inactive")
            case 1:
                await sweep.sweep(service.deps)
            case 2:
                await log.give(event(number, at=now, who=who))
            case 3:
                customer = {"customer_id": chance.choice("ab")}
                await log.give(event(number, "login", customer, at=now, who=f"visitor:{chance.choice('ab')}"))
            case _:
                await log.give(joins(number, chance.choice(["vip", "retail"]), now, f"customer:{chance.choice('ab')}"))
    await sound(service)
    assert len(await history(service)) > 2
