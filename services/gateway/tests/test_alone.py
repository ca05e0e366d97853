"""Who is at another Redis than the services does not show for long what may be killed there; and what documents it has."""

from __future__ import annotations

import asyncio
import math

import pytest
from gateway.domain.release import OF_CONTENT, OF_PROMO
from gateway.flows import knowledge as known
from gateway.flows.knowledge import Knowledge
from gateway.flows.watch import Watcher
from watched import Shop

ALONE = {OF_CONTENT, OF_PROMO}


@pytest.mark.parametrize("theirs", ["other", "another"])
async def test_what_may_be_killed_is_shown_by_who_reads_of_it_where_the_services_are(
    shop: Shop, watcher: Watcher, knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    monkeypatch.setattr(known, "ALONE_S", 0.3)
    stop = asyncio.Event()
    running = [asyncio.ensure_future(run(stop)) for run in (watcher.heads, watcher.run)]

    async def until(stale: set[int]) -> None:
        async with asyncio.timeout(10):
            while not knowledge.loaded or set(knowledge.current().stale) != stale:
                knowledge.leased("ours", math.inf)
                await asyncio.sleep(0.02)

    try:
        for redis, stale in (("ours", set()), (theirs, ALONE), ("ours", set()), (theirs, ALONE), (None, set())):
            shop.redis = redis
            await until(stale)
            assert (knowledge.trouble is not None) is (stale == ALONE)
    finally:
        stop.set()
        await asyncio.gather(*running)
