"""promo-svc in process, on real PostgreSQL and Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from chassis.auth import SERVER, Actor, ServiceTokens
from chassis.clock import ManualClock
from chassis.db import Patience, Tx
from chassis.migrate import upgrade
from promo_svc import till
from promo_svc.app import SCHEMA, build
from promo_svc.settings import Settings

SECRET = "s" * 32
Replica = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
ACTOR, STOREFRONT = Actor("ann", "admin"), Actor("shop", SERVER)


@pytest.fixture
async def stored(database: str) -> AsyncIterator[asyncpg.Connection]:
    """What is in the database, behind the service's back."""
    await upgrade(database, schema=SCHEMA, package="promo_svc")
    connection = await asyncpg.connect(database, server_settings={"search_path": SCHEMA})
    yield connection
    await connection.close()


def signed(request: httpx.Request) -> httpx.Request:
    """A token lives a minute; a test may take longer. Who redeems is a storefront's server, and nobody else."""
    actor = STOREFRONT if request.url.path.startswith("/v1/redemptions") else ACTOR
    request.headers["authorization"] = f"Bearer {ServiceTokens(SECRET, 'test').issue('promo-svc', actor)}"
    return request


@pytest.fixture
def clock() -> ManualClock:
    """What time it is for the database that the service asks."""
    return ManualClock(1_800_000_000_000)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for a busy machine."""
    monkeypatch.setattr(till, "TURN_S", 60.0)
    monkeypatch.setattr(till, "PATIENCE", Patience(30.0, 20.0, 60.0))


@pytest.fixture
async def replica(database: str, redis_url: str) -> Replica:
    """Start one, to be asked as long as the context of the call lasts; one that `follows` runs its loops, too. Takes what `build`
    does."""
    await upgrade(database, schema=SCHEMA, package="promo_svc")

    @asynccontextmanager
    async def start(*, follows: bool = False, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
        async with build(Settings(database, redis_url, SECRET), **more) as service:
            transport, stop = httpx.ASGITransport(service.app), asyncio.Event()
            async with asyncio.TaskGroup() as loops:
                for loop in service.loops if follows else ():
                    loops.create_task(loop.run(stop))
                async with httpx.AsyncClient(transport=transport, base_url="http://promo", auth=signed) as made:
                    yield made
                stop.set()

    return start


@pytest.fixture
async def client(replica: Replica, clock: ManualClock, patience: None) -> AsyncIterator[httpx.AsyncClient]:
    async def now(_: Tx) -> int:
        return clock.now_ms()

    async with replica(now=now) as made:
        yield made


@pytest.fixture
def redeem(client: httpx.AsyncClient, clock: ManualClock) -> Callable[..., Awaitable[httpx.Response]]:
    """Wish to use a coupon, as the gateway asks for a stranger; `whose` says who else it is."""

    async def ask(key: str, coupon: str = "TEN", customer: str = "c", **whose: Any) -> httpx.Response:
        body = {"coupon": coupon, "customer": customer, "website": "main", "at_ms": clock.now_ms(), **whose}
        return await client.post("/v1/redemptions", json=body, headers={"idempotency-key": key})

    return ask
