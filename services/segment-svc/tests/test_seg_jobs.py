"""A job goes on whatever else is saved meanwhile, and what serves is at every moment what the rules that serve say."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from segment_svc import store
from segment_svc.domain.definition import leaving
from segment_svc.flows import backfill

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import VIEWED, Log, event, make, members

servers = pytest.mark.servers
SEARCHED = {"events": {"type": "search", "count": {"op": "gte", "value": 1}}}
PAGED = {"events": {"type": "page_view", "count": {"op": "gte", "value": 1}}}
KINDS = ("product_view", "search", "page_view")
PAGES = 4


def within(*keys: str, op: str = "in") -> dict[str, Any]:
    return {"segment": {"op": op, "keys": list(keys)}}


class Shop:
    """Twelve people, of whom a page has three; each did some of three things."""

    def __init__(self, client: httpx.AsyncClient, service: Any) -> None:
        self.client, self.service, self.log, self.number = client, service, Log(service), 100

    async def save(self, key: str, condition: Any, *, status: str = "active") -> int:
        """Answers the HTTP status."""
        found = await self.client.get(f"/v1/segments/{key}")
        body = {"name": key, "status": status, "condition": condition}
        if found.status_code == 404:
            answer = await self.client.post("/v1/segments", json={**body, "key": key})
        else:
            seen = {"if-match": f'"{found.json()["version"]}"'}
            answer = await self.client.put(f"/v1/segments/{key}", json=body, headers=seen)
        return answer.status_code

    async def delete(self, key: str) -> int:
        found = (await self.client.get(f"/v1/segments/{key}")).json()
        seen = {"if-match": f'"{found.get("version", 1)}"'}
        return (await self.client.delete(f"/v1/segments/{key}", headers=seen)).status_code

    async def act(self, who: int, kind: str) -> None:
        self.number += 1
        await self.log.give(event(self.number, kind, who=f"visitor:p{who:02}"))

    async def serves(self, key: str) -> bool:
        found = (await self.client.get(f"/v1/segments/{key}")).json()
        return bool(found["live_version"] == found["version"])

    async def jobs(self) -> list[tuple[str, list[str], int]]:
        """(status, segments, people done) of each, newest first."""
        found = (await self.client.get("/v1/backfills")).json()["backfills"]
        return [(job["status"], sorted(job["segments"]), job["done"]) for job in found]

    async def steps_until(self, key: str, most: int = 30) -> int:
        for number in range(most):
            if await self.serves(key):
                return number
            await backfill.step(self.service.deps)
        raise AssertionError(f"{key} does not serve after {most} steps")

    async def finish(self) -> None:
        while await backfill.step(self.service.deps):
            pass

    async def is_as_recomputed(self) -> bool:
        """Whether everybody is where the rules that serve say, and so do documents and bits."""
        async with self.service.deps.db.tx() as tx:
            rules = await self.service.deps.rulebook.current(tx)
            rows = await store.load(tx, [r["profile"] for r in await tx.fetch("SELECT profile FROM profile")])
            listed = {tuple(r) for r in await tx.fetch("SELECT profile, segment_id FROM membership")}
            quarantined = {r[0] for r in await tx.fetch("SELECT segment_id FROM plan WHERE cause IS NOT NULL")}
        assert not quarantined
        said = set()
        for key, row in rows.items():
            bits = rules.ruleset.timeline(row.profile, row.settled_at, horizon_ms=0, key=key).bits
            said |= {(key, rules.by_atom[atom].id) for atom in rules.by_atom if bits >> atom & 1}
            assert not (row.atoms ^ bits) & rules.live_mask
        assert listed == said
        return True


@pytest.fixture
async def shop(client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(backfill, "PAGE", 3)
    shop = Shop(client, service)
    for who in range(12):
        for kind in KINDS[: who % 3 + 1]:
            await shop.act(who, kind)
    return shop


def test_what_cannot_be_computed_without_others_leaves_with_them() -> None:
    assert leaving({"a"}, {"a": set(), "b": {"a"}, "c": {"b"}, "d": set()}, {}) == {"a", "b", "c"}, "who refers to it"
    assert leaving({"b"}, {"a": set(), "b": {"a"}}, {}) == {"b"}, "what it refers to can be without it"
    assert leaving({"b"}, {"a": set(), "b": set(), "c": {"a"}}, {"b": {"a"}}) == {"a", "b", "c"}, "unless it serves so"
    assert leaving({"x"}, {"a": {"y"}, "b": set()}, {"x": {"b"}}) == set(), "what is not being computed"


@servers
class TestOthers:
    async def test_saves_of_another_segment_cost_a_job_no_page(self, shop: Shop) -> None:
        await shop.save("mine", VIEWED)
        alone = await shop.steps_until("mine")
        await shop.save("mine", SEARCHED)
        for number in range(alone):
            assert not await shop.serves("mine")
            await shop.save("other", VIEWED if number % 2 else SEARCHED)
            await backfill.step(shop.service.deps)
            assert await shop.is_as_recomputed()
        assert await shop.serves("mine")
        assert await members(shop.client, "mine") == {f"v:p{n:02}" for n in range(12) if n % 3}
        assert [job[:2] for job in (await shop.jobs())[:2]] == [("running", ["other"]), ("done", ["mine"])]
        assert await shop.steps_until("other") == alone
        assert await shop.is_as_recomputed()

    async def test_who_saves_again_and_again_delays_that_segment_alone_and_only_the_last_version_serves(
        self, shop: Shop
    ) -> None:
        await shop.save("other", VIEWED)
        await shop.finish()
        await shop.save("other", SEARCHED)
        await shop.save("mine", SEARCHED)
        await backfill.step(shop.service.deps)
        assert (await shop.jobs())[:2] == [("waiting", ["mine"], 0), ("running", ["other"], 3)]
        await shop.save("other", PAGED)  # of the running job nothing is left: the one that waits begins
        assert [job[:2] for job in (await shop.jobs())[:2]] == [("running", ["mine", "other"]), ("replaced", ["other"])]
        await backfill.step(shop.service.deps)
        for _ in range(PAGES):
            await shop.save("other", PAGED)
            await backfill.step(shop.service.deps)
        assert await shop.serves("mine")
        assert (await shop.client.get("/v1/segments/other")).json()["live_version"] == 1, "nothing between did"
        assert await shop.is_as_recomputed()
        await shop.finish()
        assert await members(shop.client, "other") == {f"v:p{n:02}" for n in range(12) if n % 3 == 2}

    async def test_a_change_that_waits_holds_for_what_happens_meanwhile(self, shop: Shop) -> None:
        await shop.save("mine", SEARCHED)
        await shop.save("other", PAGED)
        await shop.act(0, "page_view")
        while not await shop.serves("mine"):
            await backfill.step(shop.service.deps)
        await shop.act(1, "page_view")
        await shop.finish()
        await shop.act(3, "page_view")
        assert await members(shop.client, "other") == {f"v:p{n:02}" for n in (0, 1, 2, 3, 5, 8, 11)}
        assert await shop.is_as_recomputed()


@servers
class TestTogether:
    async def test_who_refers_to_what_is_saved_waits_with_it_and_others_go_on(self, shop: Shop) -> None:
        for key, condition in (("base", VIEWED), ("user", within("base")), ("else", VIEWED)):
            await make(shop.client, shop.service, key, condition)
        await shop.save("filler", VIEWED)
        for key in ("base", "else"):
            await shop.save(key, SEARCHED)
        await shop.steps_until("filler")
        assert (await shop.jobs())[0][:2] == ("running", ["base", "else", "user"])
        await backfill.step(shop.service.deps)
        await shop.save("base", PAGED)
        assert [job[:2] for job in (await shop.jobs())[:2]] == [("waiting", ["base", "user"]), ("running", ["else"])]
        await shop.steps_until("else")
        assert await shop.is_as_recomputed()
        await shop.finish()
        assert await members(shop.client, "user") == {f"v:p{n:02}" for n in range(12) if n % 3 == 2}
        assert await shop.is_as_recomputed()

    async def test_what_the_version_that_serves_refers_to_waits_with_it(self, shop: Shop) -> None:
        await make(shop.client, shop.service, "base", VIEWED)
        await make(shop.client, shop.service, "user", within("base", op="not_in"))
        await shop.save("base", SEARCHED)
        await backfill.step(shop.service.deps)
        await shop.save("user", {"all": [PAGED, within("base")]})
        assert [job[:2] for job in (await shop.jobs())[:2]] == [
            ("running", ["base", "user"]),
            ("replaced", ["base", "user"]),
        ]
        while await backfill.step(shop.service.deps):
            assert await shop.is_as_recomputed()
        assert await members(shop.client, "user") == {f"v:p{n:02}" for n in range(12) if n % 3 == 2}


@servers
class TestSwitchedOff:
    @pytest.mark.parametrize("how", ["off", "deleted"])
    async def test_what_is_switched_off_leaves_its_job_at_once_which_goes_on_without_it(
        self, shop: Shop, how: str
    ) -> None:
        await shop.save("first", VIEWED)
        await shop.save("gone", VIEWED)
        await shop.save("mine", SEARCHED)
        await shop.steps_until("first")
        await backfill.step(shop.service.deps)
        assert (await shop.jobs())[0] == ("running", ["gone", "mine"], 3)
        done = await (shop.save("gone", VIEWED, status="inactive") if how == "off" else shop.delete("gone"))
        assert done in (200, 204)
        assert (await shop.jobs())[0] == ("running", ["mine"], 3)
        assert await shop.steps_until("mine") == PAGES
        assert await shop.is_as_recomputed()

    async def test_what_still_serves_keeps_what_it_refers_to(self, shop: Shop) -> None:
        await make(shop.client, shop.service, "base", VIEWED)
        await make(shop.client, shop.service, "user", within("base"))
        await make(shop.client, shop.service, "late", PAGED)
        await shop.save("late", SEARCHED)
        await backfill.step(shop.service.deps)
        await shop.save("user", {"any": [VIEWED, SEARCHED]})  # waits, and refers to it no more
        assert (await shop.delete("base"), await shop.save("base", VIEWED, status="inactive")) == (409, 409)
        before = sorted(await members(shop.client, "user"))
        await shop.act(1, "page_view")
        assert (sorted(await members(shop.client, "user")), await shop.is_as_recomputed()) == (before, True)
        await shop.finish()
        assert await shop.delete("base") == 204

    async def test_when_nothing_is_left_of_a_job_the_one_that_waits_begins(self, shop: Shop) -> None:
        await shop.save("gone", VIEWED)
        await shop.save("mine", SEARCHED)
        await shop.save("too", SEARCHED)
        await shop.delete("too")
        await backfill.step(shop.service.deps)
        await shop.save("gone", VIEWED, status="inactive")
        assert await shop.jobs() == [("running", ["mine"], 0), ("replaced", ["gone"], 3)]
        await shop.delete("mine")
        assert [job[0] for job in await shop.jobs()] == ["replaced", "replaced"]
        assert not await backfill.step(shop.service.deps)


@servers
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_saved_when_and_by_two_workers_who_serves_is_who_the_rules_say(shop: Shop, seed: int) -> None:
    rng = random.Random(seed)
    keys = ["a", "b", "c", "d"]

    def condition() -> dict[str, Any]:
        leaf = rng.choice((VIEWED, SEARCHED, PAGED))
        op = rng.choice(("in", "not_in"))
        return leaf if rng.random() < 0.4 else {rng.choice(("all", "any")): [leaf, within(rng.choice(keys), op=op)]}

    for _ in range(40):
        kind = rng.random()
        if kind < 0.35:
            assert await shop.save(rng.choice(keys), condition()) in (
                200,
                201,
                422,
            )  # 422: refers to nothing, or itself
        elif kind < 0.42:
            assert await shop.delete(rng.choice(keys)) in (204, 404, 409)
        elif kind < 0.55:
            await shop.act(rng.randrange(16), rng.choice(KINDS))
        else:
            both = (backfill.step(shop.service.deps) for _ in range(rng.choice((1, 1, 2))))
            await asyncio.gather(
                *both, shop.save(rng.choice(keys), condition()) if rng.random() < 0.2 else asyncio.sleep(0)
            )
        assert await shop.is_as_recomputed()
    await shop.finish()
    assert await shop.is_as_recomputed()
    assert not {job[0] for job in await shop.jobs()} & {"running", "waiting"}
    served = (await shop.client.get("/v1/segments")).json()["segments"]
    assert all(s["live_version"] == s["version"] for s in served if s["status"] == "active")
