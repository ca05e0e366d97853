"""What takes long is done by turns, and never holds up who owns something else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from chassis.beside import Beside
from chassis.problems import Problem


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What the work waits for; nothing waits after the test."""
    opened = threading.Event()
    yield opened
    opened.set()


async def until(came: list[str], count: int) -> None:
    while len(came) < count:
        await asyncio.sleep(0.01)


class TestBeside:
    async def test_one_owner_has_one_thread_and_another_one_does_not_wait(self, gate: threading.Event) -> None:
        beside, came = Beside(2, waiting=5, patience_s=60), []

        def work(name: str) -> str:
            came.append(name)
            gate.wait(30)
            return name

        many = [asyncio.create_task(beside.run("a", work, f"a{n}")) for n in range(3)]
        await until(came, 1)
        other = asyncio.create_task(beside.run("b", work, "b"))
        await until(came, 2)
        assert came == ["a0", "b"]
        gate.set()
        assert await asyncio.gather(*many, other) == ["a0", "a1", "a2", "b"]
        beside.close()

    async def test_too_many_of_one_owner_are_told_so(self, gate: threading.Event) -> None:
        beside = Beside(1, waiting=1, patience_s=60)
        many = [asyncio.create_task(beside.run("a", gate.wait, 30)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refused:
            await beside.run("a", gate.wait, 30)
        assert (refused.value.status, refused.value.slug) == (503, "busy")
        gate.set()
        assert await asyncio.gather(*many) == [True, True]
        assert await beside.run("a", gate.wait, 30), "when they are done, it is as before"
        beside.close()

    async def test_who_goes_away_does_not_free_the_thread_that_works_for_him(self, gate: threading.Event) -> None:
        beside, came = Beside(2, waiting=5, patience_s=60), []

        def work(name: str) -> None:
            came.append(name)
            gate.wait(30)

        gone = asyncio.create_task(beside.run("a", work, "gone"))
        await until(came, 1)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        next_one = asyncio.create_task(beside.run("a", work, "next"))
        await asyncio.sleep(0.1)
        assert came == ["gone"]
        gate.set()
        await next_one
        beside.close()

    async def test_what_waits_at_the_end_is_given_up(self, gate: threading.Event) -> None:
        beside, came = Beside(1, waiting=5, patience_s=60), []

        def work(name: str) -> None:
            came.append(name)
            gate.wait(30)

        working = asyncio.create_task(beside.run("a", work, "a"))
        await until(came, 1)
        waiting = asyncio.create_task(beside.run("b", work, "b"))
        for _ in range(5):  # until it waits for the thread
            await asyncio.sleep(0)
        beside.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.set()
        await working
        assert came == ["a"]
