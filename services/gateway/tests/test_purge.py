"""Every edge forgets what was replaced: now and once more, whoever else is away, and whatever happened before."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import httpx
import pytest
from chassis.asking import ask
from chassis.clock import ManualClock
from chassis.health import Health
from gateway.domain.debts import AGAIN_S, LATE_MS, Debt, debts_of, lines
from gateway.domain.tags import ALL, MANY, MOST_LINE, of_answer
from gateway.flows import purge
from gateway.flows.purge import Purger
from redis.exceptions import ConnectionError as Away

NOW = 1_800_000_000_000
ONE, TWO = "http://one", "http://two"


def said(version: int, *tags: str, since: int = 0, hard: bool = True) -> dict[str, Any]:
    """What a service says of itself when every version after one had these tags."""
    changes = [{"version": v, "tags": list(tags or [f"t{v}"]), "hard": hard} for v in range(since + 1, version + 1)]
    return {"version": version, "changes": changes}


def main(*tags: str) -> set[str]:
    """What the only website there is has to forget."""
    return {f"main:{tag}" for tag in (*tags, MANY)}


class Edges:
    """Two edges and a Redis; `away` are who does not answer."""

    def __init__(self) -> None:
        self.away, self.taken = set[str](), dict[str, list[tuple[str, set[str]]]]({ONE: [], TWO: []})
        self.stored: dict[str, bytes] = {}

    def take(self, request: httpx.Request) -> httpx.Response:
        edge = str(request.url).rstrip("/")
        if edge in self.away:
            return httpx.Response(503)
        name = "xkey-purge" if "xkey-purge" in request.headers else "xkey-softpurge"
        assert request.headers["x-purge-key"] == "s"
        self.taken[edge].append((name.removeprefix("xkey-"), set(request.headers[name].split())))
        return httpx.Response(200)

    async def mget(self, names: list[str]) -> list[bytes | None]:
        if self.away & {"redis", "marks"}:
            raise Away
        return [self.stored.get(name) for name in names]

    async def mset(self, marks: dict[str, int]) -> None:
        if "redis" in self.away:
            raise Away
        self.stored |= {name: b"%d" % mark for name, mark in marks.items()}


@pytest.fixture
def edges(monkeypatch: pytest.MonkeyPatch) -> Edges:
    made, client = Edges(), httpx.AsyncClient
    transport = httpx.MockTransport(made.take)
    monkeypatch.setattr(purge.httpx, "AsyncClient", lambda **more: client(transport=transport, **more))
    return made


class Rig:
    """A gateway's purger whose clock is moved by hand."""

    def __init__(self, edges: Edges, monkeypatch: pytest.MonkeyPatch) -> None:
        self.purger, self.now_s = Purger((ONE, TWO), "s", ["main"], edges, ManualClock(NOW), Health()), 100.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now_s, raising=False)

    async def look(self, after_s: float = 0.0) -> None:
        self.now_s += after_s
        for edge in self.purger._edges:
            await edge.look()


@pytest.fixture
async def rig(edges: Edges, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(edges, monkeypatch)


async def known(rig: Rig, edges: Edges, version: int = 5) -> None:
    """Everything up to a version is purged, and nothing is owed."""
    rig.purger.changed(1, said(version))
    await rig.look()
    await rig.look(AGAIN_S)
    for taken in edges.taken.values():
        taken.clear()


async def test_what_an_edge_was_asked_is_gone_at_once(rig: Rig, edges: Edges, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = list[weakref.ref[httpx.Response]]()

    async def seen(*asked: Any, **more: Any) -> httpx.Response:
        kept.append(weakref.ref(answer := await ask(*asked, **more)))
        return answer

    monkeypatch.setattr(purge, "ask", seen)
    monkeypatch.setattr(purge.httpx, "AsyncClient", None)  # it has its client, and makes no other
    gc.disable()
    try:
        for version in range(6, 12):
            rig.purger.changed(1, said(version))
            await rig.look(60)
        assert [ref() for ref in kept] == [None] * 12
    finally:
        gc.enable()


class TestOwed:
    async def test_what_changed_is_purged_at_once_and_again_when_no_answer_of_before_is_on_its_way(
        self, rig: Rig, edges: Edges
    ) -> None:
        await known(rig, edges)
        rig.purger.changed(1, said(6))
        await rig.look()
        assert edges.taken == {ONE: [("purge", main("t6"))], TWO: [("purge", main("t6"))]}
        await rig.look(AGAIN_S - 0.1)
        assert len(edges.taken[ONE]) == 1
        await rig.look(0.1)
        assert edges.taken[ONE] == [("purge", main("t6"))] * 2
        await rig.look(60)
        assert len(edges.taken[ONE]) == 2

    async def test_an_edge_that_is_away_is_told_when_it_is_back_and_keeps_no_other_waiting(
        self, rig: Rig, edges: Edges
    ) -> None:
        await known(rig, edges)
        edges.away.add(ONE)
        for version in (6, 7):
            rig.purger.changed(1, said(version))
            await rig.look(60)
        assert "main:t7" in edges.taken[TWO][-1][1]
        assert edges.taken[ONE] == []
        edges.away.clear()
        await rig.look()
        assert edges.taken[ONE] == [("purge", main("t6", "t7"))]

    async def test_an_edit_is_purged_softly_and_what_ends_hard(self, rig: Rig, edges: Edges) -> None:
        await known(rig, edges)
        rig.purger.changed(1, said(6, "edit", since=5, hard=False))
        rig.purger.changed(2, said(1, "end"))
        await rig.look()
        assert edges.taken[ONE] == [("purge", {ALL}), ("softpurge", main("edit"))]


class TestStart:
    async def test_a_gateway_that_starts_purges_what_nobody_did(
        self, rig: Rig, edges: Edges, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await known(rig, edges, 5)
        other = Rig(edges, monkeypatch)
        other.purger.changed(1, said(7))
        await other.look()
        assert edges.taken[ONE] == [("purge", main("t6", "t7"))]

    async def test_what_was_begun_and_not_done_is_done_by_the_next_one(
        self, rig: Rig, edges: Edges, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await known(rig, edges, 5)
        rig.purger.changed(1, said(6))
        await rig.look()  # and dies
        other = Rig(edges, monkeypatch)
        other.purger.changed(1, said(6))
        await other.look()
        assert edges.taken[ONE] == [("purge", main("t6"))] * 2

    async def test_when_nobody_knows_everything_is_purged(self, rig: Rig, edges: Edges) -> None:
        edges.stored |= dict.fromkeys((f"edge:purged:content:{edge}" for edge in (ONE, TWO)), b"12.5")
        rig.purger.changed(1, said(6))
        await rig.look()
        assert edges.taken[ONE] == [("purge", {ALL})]

    async def test_while_redis_does_not_say_only_what_ended_of_late_is_thrown_away(
        self, rig: Rig, edges: Edges, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await known(rig, edges, 5)
        edges.away.add("redis")
        other = Rig(edges, monkeypatch)
        told = said(7)
        ages_ms = [0, 60_000, 60_000, LATE_MS, LATE_MS + 1, LATE_MS - 1, 0]
        for change, age_ms in zip(told["changes"], ages_ms, strict=True):
            change |= {"at": NOW - age_ms, "hard": change["version"] != 3}
        other.purger.changed(1, told)
        await other.look()
        assert edges.taken[ONE] == [("purge", main("t1", "t2", "t6", "t7")), ("softpurge", {ALL})]
        await other.look(AGAIN_S)
        assert edges.taken[ONE][2:] == [("purge", main("t1", "t2", "t6", "t7"))]
        other.purger.changed(1, said(8))
        await other.look()
        assert edges.taken[ONE][3:] == [("purge", main("t8"))]
        edges.away.clear()
        await other.look(AGAIN_S)
        assert edges.taken[ONE][4:] == [("purge", main("t6", "t7", "t8"))], "what nobody did before us"
        await other.look(AGAIN_S)
        assert edges.taken[ONE][5:] == [("purge", main("t6", "t7"))]
        await other.look(AGAIN_S)
        assert edges.stored[f"edge:purged:content:{ONE}"] == b"8"
        assert len(edges.taken[ONE]) == 6

    async def test_marks_that_nobody_read_are_not_written_over(
        self, rig: Rig, edges: Edges, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await known(rig, edges, 5)
        edges.away.add("marks")
        other = Rig(edges, monkeypatch)
        other.purger.changed(1, said(7))
        for after_s in (0, AGAIN_S, 1):
            await other.look(after_s)
        assert edges.stored[f"edge:purged:content:{ONE}"] == b"5"


class TestDebts:
    @pytest.mark.parametrize(
        ("version", "since", "first", "tags"),
        [
            (6, 5, 0, main("t6")),
            (6, 6, 0, set()),
            (6, 4, 5, {ALL}),
            (6, None, 0, {ALL}),
            (3, 5, 0, {ALL}),
            (2, 0, 1, main("t2")),
        ],
    )
    def test_what_is_owed(self, version: int, since: int | None, first: int, tags: set[str]) -> None:
        found = debts_of(said(version, since=first), since, ["main"], 10.0)
        assert {tag for debt in found for tag in debt.tags} == tags
        assert sorted({debt.due_s for debt in found}) == ([10.0, 10.0 + AGAIN_S] if tags else [])

    def test_a_change_is_forgotten_by_the_websites_that_notice_it(self) -> None:
        told = {"version": 2, "changes": [{"version": 2, "tags": ["slot:a"], "websites": ["de"], "hard": True}]}
        assert debts_of(told, 1, ["de", "fr"], 0.0)[0].tags == {"de:slot:a", "de:many"}
        told["changes"][0]["websites"] = []  # type: ignore[index]
        assert debts_of(told, 1, ["de", "fr"], 0.0)[0].tags == {"de:slot:a", "de:many", "fr:slot:a", "fr:many"}

    @pytest.mark.parametrize("count", [0, 1, 50, 500])
    def test_whatever_an_answer_is_made_of_every_change_of_it_and_of_everything_finds_it(self, count: int) -> None:
        tags = [f"slot:{'x' * 45}{n}" for n in range(count)]
        line = of_answer("de", tags)
        assert len(line) <= MOST_LINE
        for tag in tags:
            told = {"version": 2, "changes": [{"version": 2, "tags": [tag], "websites": ["de"], "hard": True}]}
            assert not debts_of(told, 1, ["de", "fr"], 0.0)[0].tags.isdisjoint(line.split())
        assert ALL in line.split()

    def test_more_tags_than_a_line_holds_are_all_of_them(self) -> None:
        many = frozenset(f"slot:{'x' * 45}{n}" for n in range(MOST_LINE // 50))
        assert lines([Debt(many, False, 1.0), Debt(frozenset("a"), True, 1.0)], 1.0) == [(True, "a"), (False, ALL)]
        assert lines([Debt(many, False, 1.0)], 0.9) == []
