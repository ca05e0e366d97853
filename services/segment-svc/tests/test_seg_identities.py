"""How many names a person goes by: the oldest goes first, and is nobody's afterwards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.clock import ManualClock
from segment_svc import identities, store, wire

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import START, VIEWED, Log, event, make, members, shown

servers = pytest.mark.servers
DEBTOR = {"attribute": {"name": "debtor", "op": "eq", "value": "yes"}}


def logs_in(number: int, visitor: str) -> Any:
    data = {"visitor_id": visitor, "customer_id": "c"}
    return event(number, "login", data, at=START + number, who="customer:c")


@servers
class TestLettingGo:
    async def test_the_visitor_who_was_the_customer_for_longest_is_nobody_afterwards(
        self, client: httpx.AsyncClient, service: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(identities, "MOST", 3)
        log = Log(service)
        await make(client, service, "viewers", VIEWED)
        await log.give(event(100, who="customer:c"))
        for number in range(5):
            clock.set(START + number)
            await log.give(logs_in(number, f"z{9 - number}"))
            await service.deps.relay.drain()
        assert set((await client.get("/v1/profiles/c:c")).json()["identities"]) == {"c:c", "v:z7", "v:z6", "v:z5"}
        assert await members(client, "viewers") == {"c:c"}
        for name, customer in (("c:c", True), ("v:z7", True), ("v:z8", False), ("v:z9", False)):
            found = await shown(service, name)
            assert (found.customer, bool(found.bits)) == (customer, customer), name
        await log.give(event(200, "identify", {"attributes": {"a": 1}}, who="visitor:z9"))
        await log.give(event(201, who="customer:c"))
        assert (await client.get("/v1/profiles/v:z9")).json()["profile"] == "v:z9"
        assert not (await shown(service, "v:z9")).customer
        await log.give(logs_in(300, "z9"))
        assert (await shown(service, "v:z9")).customer, "until they log in again"
        assert (await shown(service, "v:z7")).customer is False

    async def test_more_logins_at_once_than_there_may_be_names_leave_as_many_as_there_may_be(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(identities, "MOST", 3)
        log = Log(service)
        await make(client, service, "viewers", VIEWED)
        await log.give(
            *(event(50 + n, who=f"visitor:n{n}") for n in range(6)), *(logs_in(n, f"n{n}") for n in range(6))
        )
        kept = set((await client.get("/v1/profiles/c:c")).json()["identities"])
        assert len(kept) == 4
        for name in (f"v:n{n}" for n in range(6)):
            assert (await shown(service, name)).customer == (name in kept)
        assert await members(client, "viewers") == {"c:c"}

    async def test_who_is_worked_on_is_passed_until_the_next_login(
        self, client: httpx.AsyncClient, service: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(identities, "MOST", 2)
        log = Log(service)
        await log.give(logs_in(0, "first"))
        clock.advance(10)
        await log.give(logs_in(1, "other"))
        clock.advance(10)
        async with service.deps.db.tx() as tx:
            await tx.fetch("SELECT 1 FROM profile WHERE profile = 'v:first' FOR UPDATE")
            await log.give(logs_in(2, "second"))  # who waits for a lock gives up in the end
        assert (await shown(service, "v:first")).customer
        clock.advance(10)
        await log.give(logs_in(3, "third"))
        assert (await client.get("/v1/profiles/c:c")).json()["identities"] == ["c:c", "v:second", "v:third"]
        assert not (await shown(service, "v:first")).customer


class TestLots:
    def test_a_row_of_the_outbox_has_so_many_keys_whosever_they_are(self) -> None:
        names = [f"v:{n}" for n in range(2 * wire.MOST_DOCUMENTS + 7)]
        people = [(["v:a"], 1, b"a"), (names, 2, b"b"), (["v:c", "v:d"], 3, None)]
        found = [wire.documents_of(payload) for payload in wire.audience(people, era=0)]
        assert all(len(lot) <= wire.MOST_DOCUMENTS for lot in found)
        assert [entry for lot in found for entry in lot] == [
            (f"aud:{name}", version, body or b"") for held, version, body in people for name in held
        ]

    def test_a_person_with_many_names_takes_the_place_of_many_in_memory(self) -> None:
        recent, many = store.Recent(most_bytes=300_000), store.unmet("c:many")
        recent.put([store.unmet(f"v:{n}") for n in range(100)])
        many.names = [f"v:{n:022d}" for n in range(1001)]
        recent.put([many])
        assert recent.take("v:0") is None
        assert recent.take("c:many") is many
