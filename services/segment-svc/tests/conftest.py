"""A running segment service without HTTP: database, projection, a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from chassis.auth import Actor, ServiceTokens
from chassis.clock import ManualClock
from chassis.migrate import upgrade
from segment_svc.app import SCHEMA, adapters
from segment_svc.settings import Settings

SECRET = "s" * 32
START = 1_700_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
async def service(database: str, redis_url: str, clock: ManualClock) -> AsyncIterator[object]:
    await upgrade(database, schema=SCHEMA, package="segment_svc")
    settings = Settings(database_url=database, redis_url=redis_url, service_secret=SECRET)
    async with adapters(settings, clock=clock) as built:
        yield built


@pytest.fixture
async def client(service: object) -> AsyncIterator[httpx.AsyncClient]:
    token = ServiceTokens(SECRET, "test").issue("segment-svc", Actor("tester", "admin"))
    transport = httpx.ASGITransport(service.app)  # type: ignore[attr-defined]
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://segment", headers=headers) as client:
        yield client
