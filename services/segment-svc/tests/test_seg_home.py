"""Documents go to one Redis; by another one, to which everybody comes back, nobody is known until it has them all."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.cache import open_redis, run_of
from chassis.outbox import Relay
from devstack.servers import Valkey
from segment_svc import handover
from segment_svc.flows import project
from segment_svc.wire import AUDIENCE

sys.path.insert(0, str(Path(__file__).parent))
from test_seg_walk import START, VIEWS, save, send, view

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def second(state: Path) -> Iterator[Valkey]:
    server = Valkey(state / "second")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def other(second: Valkey) -> AsyncIterator[Any]:
    """Another Redis, that a failover leads to."""
    redis = open_redis(second.url)
    await redis.flushall()
    yield redis
    await redis.aclose()


async def look(service: Any, redis: Any) -> bool:
    """What a worker does once a second that reaches this Redis; answers whether readers go by it then."""
    await project.go_on(service.deps, redis)
    await project.project(service.deps, redis)
    mark = await redis.get(project.MARK) or b""
    return mark.partition(b" ")[2] == (await run_of(redis)).encode()


async def nobody_there(service: Any) -> None:
    """It was AWAY_S ago that somebody reached the home of the documents."""
    async with service.deps.db.tx() as tx:
        await tx.execute(f"UPDATE home SET at = at - interval '{handover.AWAY_S + 1} seconds'")


async def hand_on(service: Any, redis: Any) -> int:
    """As the relay of a worker does that reaches this Redis."""
    relay = Relay(service.deps.db, {AUDIENCE: handover.Handover(service.deps.db, redis)}, service.deps.health)
    return await relay.step(AUDIENCE)


async def all_left(client: httpx.AsyncClient, service: Any, other: Any) -> None:
    """Everybody is at the other Redis now, and somebody is known there who was not when they left."""
    await save(client, service, "runners", VIEWS)
    assert await look(service, service.redis)
    await nobody_there(service)
    assert await look(service, other)
    await send(client, view(1, START))
    await hand_on(service, other)


async def test_a_redis_that_all_left_and_came_back_to_has_not_what_was_handed_on_meanwhile(
    client: httpx.AsyncClient, service: Any, other: Any
) -> None:
    await all_left(client, service, other)
    assert not await service.redis.exists("aud:v:ann")
    assert not await look(service, service.redis), "others are at the other one, for all it knows"
    await nobody_there(service)
    assert await look(service, service.redis)
    assert await service.redis.get("aud:v:ann") == await other.get("aud:v:ann")


async def test_nor_has_one_that_nobody_looked_at_before_all_were_back(
    client: httpx.AsyncClient, service: Any, other: Any
) -> None:
    await all_left(client, service, other)
    await nobody_there(service)
    assert await look(service, service.redis)
    assert await service.redis.get("aud:v:ann") == await other.get("aud:v:ann")


async def test_a_clock_that_was_set_back_keeps_no_redis_waiting(
    client: httpx.AsyncClient, service: Any, other: Any
) -> None:
    assert await look(service, service.redis)
    async with service.deps.db.tx() as tx:
        await tx.execute("UPDATE home SET at = now() + interval '1 hour'")
    assert await look(service, other)


async def test_who_stayed_at_an_old_redis_hands_nothing_on_that_the_new_one_does_not_get(
    client: httpx.AsyncClient, service: Any, other: Any
) -> None:
    await save(client, service, "runners", VIEWS)
    assert await look(service, service.redis)
    assert not await look(service, other), "as long as somebody reaches the old one"
    await nobody_there(service)
    assert await look(service, other)
    await send(client, view(1, START))
    with pytest.raises(handover.NotAtHome):
        await hand_on(service, service.redis)
    assert await hand_on(service, other) == 1
    assert await other.exists("aud:v:ann")


async def test_a_rewriter_stops_when_the_documents_are_handed_to_another_redis_meanwhile(
    client: httpx.AsyncClient, service: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save(client, service, "runners", VIEWS)
    await send(client, *(view(n, START, f"visitor:{n}") for n in range(3)))
    monkeypatch.setattr(project, "PAGE", 1)
    documents, pages = project.store.documents, list[str]()

    async def moved(tx: Any, after: str, page: int) -> Any:
        pages.append(after)
        if len(pages) == 2:
            async with service.deps.db.tx() as another:
                await another.execute("UPDATE home SET run = 'another', at = now()")
        return await documents(tx, after, page)

    monkeypatch.setattr(project.store, "documents", moved)
    assert not await look(service, service.redis)
    assert len(pages) == 2


async def test_the_head_names_the_redis_that_documents_go_to_whichever_is_reached(
    client: httpx.AsyncClient, service: Any, other: Any
) -> None:
    assert (await client.get("/v1/head")).json()["home"] is None
    assert await look(service, service.redis)
    here = (await client.get("/v1/head")).json()
    assert here["home"] == here["redis"] == await run_of(service.redis)
    await nobody_there(service)
    assert await look(service, other)
    there = (await client.get("/v1/head")).json()
    assert (there["redis"], there["home"]) == (here["redis"], await run_of(other))
