"""Whose turn it is: nobody waits for the large carts of another website."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import httpx
import pytest
from promo_svc import snapshot
from promo_svc.app import CARTS_WAITING
from promo_svc.domain.cart import MOST_LINES

LARGE = [{"id": str(i), "price": 1} for i in range(MOST_LINES)]


def cart(website: str, lines: Any) -> dict[str, Any]:
    return {"website": website, "at_ms": 1_800_000_000_000, "lines": lines}


@pytest.mark.servers
class TestTurns:
    async def test_large_carts_of_a_website_take_turns_and_those_of_another_do_not_wait(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        going, real, at_once, most = threading.Event(), snapshot.evaluate, itertools.count(1), []

        def slow(rules: Any, asked: Any, *more: Any) -> Any:
            if asked.website == "de":
                most.append(next(at_once))
                going.wait(5)
            return real(rules, asked, *more)

        monkeypatch.setattr(snapshot, "evaluate", slow)
        many = [asyncio.create_task(client.post("/v1/evaluate", json=cart("de", LARGE))) for _ in range(12)]
        try:
            await asyncio.sleep(0.2)
            for lines in (LARGE, LARGE[:1]):
                answer = await asyncio.wait_for(client.post("/v1/evaluate", json=cart("at", lines)), 2)
                assert answer.json()["subtotal"] == len(lines)
            assert most == [1], "the others wait"
        finally:
            going.set()
        statuses = [answer.status_code for answer in await asyncio.gather(*many)]
        assert (statuses.count(200), statuses.count(503)) == (1 + CARTS_WAITING, 11 - CARTS_WAITING)
        assert (await client.post("/v1/evaluate", json=cart("de", LARGE))).status_code == 200
