"""What ends is gone when it ends, whoever is away: in memory, in what was said last, and at the edges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from chassis.clock import ManualClock
from chassis.problems import Problem
from gateway.domain.answer import is_known
from gateway.domain.kept import Kept
from gateway.flows import decide as flow
from gateway.flows.cart import _asked
from gateway.flows.decide import Decider
from gateway.flows.knowledge import Knowledge
from rigged import DEFAULT, KEYS, asked, decisions, release, slot, stranger_asks

START, MINUTE = 1_800_000_000_000, 60_000


class Shop:
    """A sale until `ends`; `away`: the service does not answer."""

    def __init__(self, ends: int) -> None:
        self.ends, self.away, self.clock = ends, False, ManualClock(START)
        none: Any = None
        promo: Any = self
        self.decider = Decider(Knowledge(), none, promo, promo, self.clock, ZoneInfo("UTC"), 5.0, 60, Kept(1 << 20))
        self.decider.knowledge.swap(*release(1, top=slot(boundaries=[ends])))

    async def ask(self, question: Mapping[str, Any]) -> Any:
        if self.away:
            raise httpx.ConnectError("away")
        now = question["at_ms"]
        blocks, until = (["sale"], self.ends) if now < self.ends else ([], None)
        said = {"version": 1, "tags": [], "next_change_at": until, "messages": []}
        return {**said, "slots": {"top": {"fallback": not blocks, "blocks": blocks}}}

    async def see(self) -> tuple[list[str], int, bool]:
        """(blocks, for how many seconds a cache may show them in all, whether that is degraded)."""
        answer = await stranger_asks(self.decider, "top")
        body, cache = flow.decode(answer.body), dict(answer.shared().headers)[b"cache-control"].decode()
        fresh, stale, error = map(int, re.findall("[0-9]+", cache)[1:4])
        return body["slots"]["top"]["blocks"], fresh + max(stale, error), "degraded" in body


@pytest.mark.parametrize(
    ("named", "known"),
    [
        (b'"a"', True), (b'W/"a"', True), (b'"b", "a"', True), (b'W/"b",W/"a" ', True), (b"*", True),
        (b'"b"', False), (b'"a', False), (b"a", False), (b"", False), (b'"ab"', False),
    ],
)  # fmt: skip
def test_what_a_cache_has_is_known_however_it_says_so(named: bytes, known: bool) -> None:
    assert is_known(b'"a"', named) is known


class TestEnds:
    @pytest.mark.parametrize("minutes", [1, 5, 7, 10, 45, 59, 61, 600])
    async def test_a_block_is_gone_at_its_end_and_no_cache_may_show_it_longer(self, minutes: int) -> None:
        shop = Shop(START + minutes * MINUTE)
        for second in (*range(0, minutes * 60, 7), minutes * 60 - 1):
            shop.clock.set(START + second * 1000)
            blocks, life, _ = await shop.see()
            assert blocks == ["sale"]
            assert second + life <= minutes * 60, "as long as a cache may have it"
        shop.clock.set(START + minutes * MINUTE)
        assert (await shop.see())[0] == []

    async def test_what_was_said_last_ends_too_and_is_never_taken_for_the_whole(self) -> None:
        shop = Shop(START + 10 * MINUTE)
        assert await shop.see() == (["sale"], 360, False)
        shop.away = True
        shop.clock.set(START + 10 * MINUTE - 1)
        assert await shop.see() == (["sale"], 0, True)
        shop.clock.set(START + 10 * MINUTE)
        assert (await shop.see())[0::2] == (DEFAULT, True)
        shop.away = False
        shop.clock.advance(6_000)
        assert (await shop.see())[0::2] == ([], False)


class TestDoor:
    def test_a_query_that_was_read_before_is_still_for_those_who_read(self) -> None:
        door = decisions(Shop(START).decider, KEYS)
        for method in ("GET", "HEAD"):
            door.begin(asked(b"slots=top", method))
        for method in ("POST", "DELETE", "PATCH", "OPTIONS"):
            with pytest.raises(Problem) as refused:
                door.begin(asked(b"slots=top", method))
            assert refused.value.status == 405

    def test_fields_nobody_knows_are_named_as_pointers_and_not_all_of_very_many(self) -> None:
        for names in (["a/b~c"], [f"x{n}" for n in range(10_000)], ["n" * 100_000]):
            with pytest.raises(Problem) as refused:
                _asked({"lines": [], **dict.fromkeys(names, 1)})
            said = refused.value.response().body
            assert len(said) < 10_000
            assert b"/a~1b~0c" in said or names[0] != "a/b~c"
