"""Compiling: only what changed, beside the loop, of so many definitions as there is room for."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from conditions import compiler
from segment_svc import definitions
from segment_svc.domain import profile as people
from segment_svc.domain.definition import Definition, needed
from segment_svc.domain.part import Part
from segment_svc.domain.ruleset import RuleSet
from segment_svc.flows import preview

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import VIEWED, make

SECRET = "s" * 32


def definition(number: int, condition: Any = None, **more: Any) -> Definition:
    condition = condition or {"attribute": f"a{number}", "op": "missing"}
    return Definition(number, f"s{number}", more.pop("version", 1), "both", (), condition, (), (number,), **more)


def refers(*keys: str) -> dict[str, Any]:
    return {"segment": {"op": "in", "keys": list(keys)}}


def bits(rules: RuleSet) -> int:
    return rules.timeline(people.empty("customer"), 1, horizon_ms=0).bits


class TestAnew:
    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The keys of the definitions that were read."""
        found, real = [], Part.read

        def seen(definition: Definition, *more: Any) -> Part:
            found.append(definition.key)
            return real(definition, *more)

        monkeypatch.setattr(Part, "read", seen)
        return found

    def test_only_what_changed_is_read_again(self, read: list[str]) -> None:
        first = [definition(1), definition(2), definition(3, refers("s2"))]
        before = RuleSet.compile(first)
        read.clear()
        same = RuleSet.compile([*first[:2], definition(3, refers("s2"), since=7)], before=before)
        assert (read, same.decide) == ([], before.decide)
        changed = {"attribute": "a2", "op": "exists"}
        after = RuleSet.compile([first[0], definition(2, changed, version=2), first[2]], before=same)
        assert (read, bits(after)) == (["s2"], 0b10)
        assert bits(before) == 0b1110

    def test_what_refers_to_a_segment_whose_bit_changed_is_read_again_and_so_is_other_content_of_one_version(
        self, read: list[str]
    ) -> None:
        first = [definition(1), definition(2, refers("s1"))]
        before = RuleSet.compile(first)
        read.clear()
        moved = RuleSet.compile(
            [Definition(1, "s1", 1, "both", (), first[0].condition, (), (5,)), first[1]], before=before
        )
        assert (sorted(read), bits(moved)) == (["s1", "s2"], 0b100100)
        read.clear()
        other = RuleSet.compile([definition(1, {"attribute": "a1", "op": "exists"}), first[1]], before=before)
        assert (read, bits(other)) == (["s1"], 0)

    def test_many_rules_are_several_functions_and_decide_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        missing = [{"attribute": f"a{n % 3}", "op": "missing" if n % 2 else "exists"} for n in range(1, 30)]
        shapes = [{"all": missing[n : n + 3]} if n % 4 else refers(f"s{n - 1}", "s2") for n in range(3, 25)]
        made = [definition(1), definition(2), *(definition(n, shape) for n, shape in enumerate(shapes, 3))]
        whole = RuleSet.compile(made)
        made_functions, real = [], compiler._function
        monkeypatch.setattr(compiler, "MOST_LEAVES", 4)
        monkeypatch.setattr(compiler, "_function", lambda *given: made_functions.append(1) or real(*given))
        several = RuleSet.compile(made)
        assert len(made_functions) > 5
        assert bits(several) == bits(whole) != 0

    def test_what_a_draft_refers_to_is_needed_and_nothing_else(self) -> None:
        made = [definition(1), definition(2, refers("s1", "gone")), definition(3, refers("s2")), definition(4)]
        assert {d.key for d in needed(made, "s3")} == {"s1", "s2", "s3"}
        circle = [definition(1, refers("s2")), definition(2, refers("s1"))]
        assert {d.key for d in needed(circle, "s1")} == {"s1", "s2"}


@pytest.mark.servers
class TestBeside:
    async def test_who_asks_is_answered_from_what_is_ready_while_a_release_is_compiled(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await make(client, service, "one")
        ready = (await client.get("/v1/definitions")).json()
        going, real = threading.Event(), definitions.compile_rules

        def slow(*given: Any) -> Any:
            going.wait(60)
            return real(*given)

        monkeypatch.setattr(definitions, "compile_rules", slow)
        try:
            body = {"key": "two", "name": "two", "status": "active", "condition": VIEWED}
            assert (await client.post("/v1/segments", json=body)).status_code == 201
            for _ in range(2):
                found = (await client.get("/v1/definitions")).json()
                assert (found["version"], found["segments"]) == (ready["version"], ready["segments"])
            assert (await client.get("/v1/head")).json()["version"] > ready["version"]
        finally:
            going.set()
        async with asyncio.timeout(60):
            while (await client.get("/v1/definitions")).json()["version"] == ready["version"]:
                await asyncio.sleep(0.05)

    async def test_a_preview_compiles_what_it_needs_and_nothing_else(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for key in ("one", "two"):
            await make(client, service, key)
        compiled, real = [], RuleSet.compile
        monkeypatch.setattr(preview.RuleSet, "compile", lambda made, *more: compiled.append(made) or real(made, *more))
        assert (await client.post("/v1/segments/preview", json={"condition": refers("two")})).status_code == 200
        assert {d.key for d in compiled[-1]} == {"two", preview.DRAFT}
