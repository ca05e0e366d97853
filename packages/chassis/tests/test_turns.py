"""Whose turn it is, and who is told that it will not come."""

from __future__ import annotations

import asyncio

import pytest
from chassis.problems import Problem
from chassis.turns import Turns


class Work:
    """Something that takes a turn until it may end; it writes down in which order who had theirs."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.had, self.go = turns, list[str](), asyncio.Event()

    async def do(self, key: str, name: str) -> None:
        async with self.turns.of(key):
            self.had.append(name)
            await self.go.wait()

    async def begin(self, key: str, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self.do(key, name))
        await asyncio.sleep(0)
        return task


class TestTurns:
    async def test_so_many_of_a_key_go_on_at_once_and_the_others_in_the_order_they_came(self) -> None:
        work = Work(Turns(2, waiting=3, patience_s=60))
        begun = [await work.begin("a", name) for name in "12345"]
        assert work.had == ["1", "2"]
        begun.append(await work.begin("b", "other"))
        assert work.had[2:] == ["other"]
        with pytest.raises(Problem) as refused:
            await work.do("a", "6")
        assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "2"})
        work.go.set()
        await asyncio.gather(*begun)
        assert work.had[3:] == ["3", "4", "5"]

    async def test_who_waits_for_too_long_is_told_so_and_leaves_the_place_to_others(self) -> None:
        work = Work(Turns(1, waiting=1, patience_s=0.05))
        first = await work.begin("a", "1")
        for _ in range(3):
            with pytest.raises(Problem) as refused:
                await work.do("a", "late")
            assert refused.value.slug == "busy"
        work.go.set()
        await first
        await work.do("a", "2")
        assert work.had == ["1", "2"]

    async def test_who_fails_in_a_turn_or_goes_away_gives_it_back(self) -> None:
        work = Work(Turns(1, waiting=1, patience_s=60))
        has, waits = [await work.begin("a", name) for name in "12"]
        for given_up in (waits, has):
            given_up.cancel()
            await asyncio.wait([given_up])
        with pytest.raises(TimeoutError):  # which is not taken for a turn that did not come
            async with work.turns.of("a"):
                raise TimeoutError
        work.go.set()
        await work.do("a", "3")
        assert work.had == ["1", "3"]
