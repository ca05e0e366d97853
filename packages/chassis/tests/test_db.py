"""Connections that the server ends at any instant of a transaction: what is raised is never held against what was sent."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from chassis.db import Database, passes

CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
SECONDS, WORKERS = 6.0, 12


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    db = await Database.open(database, schema="public")
    async with db.tx() as tx:
        await tx.execute("CREATE TABLE rows (number int, text text)")
    yield db
    await db.close()


async def work(db: Database) -> None:
    """Reads, appends behind and deletes, as the flows of the services do."""
    async with db.tx() as tx:
        await tx.fetch(
            "SELECT * FROM rows WHERE number = ANY($1::int[]) FOR UPDATE SKIP LOCKED LIMIT 5", list(range(100))
        )
        await tx.behind(tx.copy("rows", [(number, "x" * 50) for number in range(200)], ["number", "text"]))
        await tx.fetchval("SELECT count(*) FROM rows")
        await tx.execute("DELETE FROM rows WHERE number < 200")


@pytest.mark.servers
async def test_a_connection_cut_at_any_instant_is_an_error_that_passes(db: Database, database: str) -> None:
    end, rng, raised = time.monotonic() + SECONDS, random.Random(1), list[Exception]()

    async def works() -> None:
        while time.monotonic() < end:
            try:
                await work(db)
            except Exception as error:
                raised.append(error)
            await asyncio.sleep(0.001)

    async def cuts() -> None:
        connection = await asyncpg.connect(database)
        while time.monotonic() < end:
            await asyncio.sleep(rng.random() * 0.06)
            await connection.fetch(CUT)
        await connection.close()

    await asyncio.gather(cuts(), *(works() for _ in range(WORKERS)))
    assert raised, "nothing was cut in the middle of anything"
    assert {repr(error) for error in raised if not passes(error)} == set()
    await db.ping()
