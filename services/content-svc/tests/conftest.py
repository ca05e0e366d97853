"""content-svc in process, on real PostgreSQL and Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from chassis.auth import Actor, ServiceTokens
from chassis.migrate import upgrade
from content_svc.app import SCHEMA, build
from content_svc.settings import Settings

SECRET = "s" * 32
ACTOR = Actor("ann", "admin")


@pytest.fixture
async def stored(database: str) -> AsyncIterator[asyncpg.Connection]:
    """What is in the database, behind the service's back."""
    await upgrade(database, schema=SCHEMA, package="content_svc")
    connection = await asyncpg.connect(database, server_settings={"search_path": SCHEMA})
    yield connection
    await connection.close()


def signed(request: httpx.Request) -> httpx.Request:
    """A token lives a minute; a test may take longer."""
    request.headers["authorization"] = f"Bearer {ServiceTokens(SECRET, 'test').issue('content-svc', ACTOR)}"
    return request


@pytest.fixture
async def client(database: str, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    await upgrade(database, schema=SCHEMA, package="content_svc")
    async with build(Settings(database, redis_url, SECRET)) as service:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://content", auth=signed) as made:
            yield made
