"""What one request, page or person may take, so that the rest goes on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from segment_svc import api, reads
from segment_svc.flows import backfill

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import VIEWED, Log, event, make, members

pytestmark = pytest.mark.servers


@pytest.fixture
async def crowd(service: Any) -> None:
    """Forty people of about ten kilobytes each."""
    log = Log(service)
    for n in range(40):
        views = [event(100 * n + i, data={"name": f"{i}" * 2000}, who=f"visitor:v{n:02}") for i in range(5)]
        await log.give(*views)


class TestBounds:
    async def test_a_page_of_a_backfill_is_bounded_by_bytes_and_all_of_it_is_done(
        self, client: httpx.AsyncClient, service: Any, crowd: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backfill, "MOST_BYTES", 50_000)
        load, pages = backfill.store.load, []

        async def counted(tx: Any, keys: Any, **more: Any) -> Any:
            pages.append(len(keys))
            return await load(tx, keys, **more)

        monkeypatch.setattr(backfill.store, "load", counted)
        await make(client, service, "viewers")
        assert len(await members(client, "viewers")) == 40
        assert sum(pages) == 40
        assert max(pages) < 10

    async def test_somebody_larger_than_a_page_is_a_page(
        self, client: httpx.AsyncClient, service: Any, crowd: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backfill, "MOST_BYTES", 1)
        await make(client, service, "viewers")
        assert len(await members(client, "viewers")) == 40

    async def test_a_preview_looks_at_so_many_bytes_and_says_of_how_many(
        self, client: httpx.AsyncClient, crowd: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = (await client.post("/v1/segments/preview", json={"condition": VIEWED})).json()
        assert (whole["matched"], whole["sampled"], whole["exact"]) == (40, 40, True)
        monkeypatch.setattr(reads, "MOST_BYTES", 50_000)
        monkeypatch.setattr(reads, "DRAWN_AT_ONCE", 2)
        part = (await client.post("/v1/segments/preview", json={"condition": VIEWED})).json()
        assert 4 <= part["sampled"] < 10
        assert (part["matched"], part["profiles"], part["estimate"], part["exact"]) == (part["sampled"], 40, 40, False)

    async def test_a_few_previews_are_made_at_a_time_and_others_are_told_to_come_again(
        self, client: httpx.AsyncClient, service: Any, crowd: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api, "PREVIEW_WAIT_S", 0.2)
        going, matched = asyncio.Event(), api._matched

        async def slow(*args: Any, **more: Any) -> Any:
            await going.wait()
            return await matched(*args, **more)

        monkeypatch.setattr(api, "_matched", slow)
        asked = [asyncio.create_task(client.post("/v1/segments/preview", json={"condition": VIEWED})) for _ in range(8)]
        done, waiting = await asyncio.wait(asked, timeout=5)
        assert (len(done), len(waiting)) == (6, 2)
        assert {(t.result().status_code, t.result().json()["type"]) for t in done} == {
            (503, "urn:footfall:problem:busy")
        }
        assert (await client.get("/v1/segments")).status_code == 200, "no connection is held meanwhile"
        going.set()
        assert [(await task).status_code for task in waiting] == [200, 200]

    async def test_what_cannot_be_done_now_is_worth_another_try(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def locked(*_: Any) -> Any:
            raise asyncpg.LockNotAvailableError("held")

        monkeypatch.setattr(api.definitions, "read_all", locked)
        answer = await client.get("/v1/segments")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["type"] == "urn:footfall:problem:busy"
