"""A database that went back has the same versions of something else: what is remembered of the other history does not count."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.clock import ManualClock
from segment_svc.app import adapters
from segment_svc.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))
from seg_log import VIEWED, Log, event, make, members

pytestmark = pytest.mark.servers
TABLES = """SELECT c.relname AS name, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND c.relname NOT LIKE 'past %' GROUP BY c.relname"""
NUMBERS = "SELECT setval(pg_get_serial_sequence('segment', 'id'), 1 + (SELECT count(*) FROM segment), false)"
FIRST = {"key": "first", "name": "x", "status": "active", "condition": VIEWED}
ORDERED = {"events": {"type": "order_placed", "count": {"op": "gte", "value": 1}}}


@pytest.fixture
async def other(service: Any, database: str, redis_url: str, clock: ManualClock) -> AsyncIterator[Any]:
    """Another process, which remembers nothing."""
    settings = Settings(database_url=database, redis_url=redis_url, service_secret="s" * 32)
    async with adapters(settings, clock=clock) as built:
        yield built


@pytest.fixture
async def there(client: httpx.AsyncClient, other: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Who asks that one."""
    transport = httpx.ASGITransport(other.app)
    async with httpx.AsyncClient(transport=transport, base_url=client.base_url, headers=client.headers) as asking:
        yield asking


class Past:
    """All that a database has, to go back to."""

    def __init__(self, service: Any) -> None:
        self._db = service.deps.db

    async def keep(self) -> None:
        async with self._db.tx() as tx:
            self._tables = await tx.fetch(TABLES)
            for name, columns in self._tables:
                await tx.execute(f'CREATE TABLE "past {name}" AS SELECT {columns} FROM "{name}"')

    async def go_back(self) -> None:
        async with self._db.tx() as tx:
            await tx.execute("SET LOCAL session_replication_role = replica")
            for name, columns in self._tables:
                await tx.execute(f'DELETE FROM "{name}"')
                await tx.execute(
                    f'INSERT INTO "{name}" ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM "past {name}"'
                )
            await tx.execute(NUMBERS)


@pytest.fixture
async def past(service: Any) -> Past:
    return Past(service)


async def test_of_a_person_only_what_the_database_has_counts(
    client: httpx.AsyncClient, service: Any, other: Any, past: Past
) -> None:
    await make(client, service, "buyers", ORDERED)
    await make(client, service, "often", {"events": {**VIEWED["events"], "count": {"op": "gte", "value": 3}}})
    log = Log(service)
    await log.give(event(1))
    await past.keep()
    await log.give(event(2))
    await past.go_back()
    await Log(other).give(event(3, "order_placed", {"order_id": "o", "total": {"amount": "1.00", "currency": "EUR"}}))
    await log.give(event(4))
    assert (await log.reasons(), await members(client, "often")) == ([], set())
    assert await members(client, "buyers") == {"v:ann"}


async def test_of_rules_too(
    client: httpx.AsyncClient, there: httpx.AsyncClient, service: Any, other: Any, past: Past
) -> None:
    log = Log(service)
    await log.give(event(1, "search", {"query": "x"}, who="visitor:bob"))
    await past.keep()
    await make(client, service, "some", VIEWED)
    await log.give(event(2, "search", {"query": "x"}, who="visitor:bob"))
    await past.go_back()
    await make(there, other, "some", ORDERED)
    await log.give(event(3))
    assert (await log.reasons(), await members(client, "some")) == ([], set())


async def test_what_is_saved_then_has_no_version_that_readers_know_as_something_else(
    client: httpx.AsyncClient, there: httpx.AsyncClient, service: Any, past: Past
) -> None:
    await make(client, service, "some", VIEWED)
    await past.keep()
    await make(client, service, "lost", VIEWED)
    lost = (await client.get("/v1/head")).json()["version"]
    await service.redis.set("ver:segment", lost)
    await past.go_back()
    assert (await there.post("/v1/segments", json=FIRST)).status_code == 201
    assert (await there.get("/v1/head")).json()["version"] > lost + 1


async def test_nor_has_it_one_that_this_process_has_seen_while_nobody_says_what_readers_know(
    client: httpx.AsyncClient, service: Any, past: Past
) -> None:
    await make(client, service, "some", VIEWED)
    await past.keep()
    await make(client, service, "lost", VIEWED)
    lost = (await client.get("/v1/head")).json()["version"]
    await past.go_back()
    await service.redis.delete("ver:segment", "aud:handed")
    assert (await client.post("/v1/segments", json=FIRST)).status_code == 201
    assert (await client.get("/v1/head")).json()["version"] > lost
