"""Connections that the server ends at any instant of a transaction: what is raised is never held against what was sent."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from chassis import db as database_module
from chassis.db import Database, Patience, passes

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


@pytest.fixture
async def strict(database: str) -> AsyncIterator[Database]:
    """A database that ends who says nothing for 0.4 s amid a transaction."""
    db = await Database.open(database, schema="public", patience=Patience(silence_s=0.4))
    async with db.tx() as tx:
        await tx.execute("CREATE TABLE one (n int)")
        await tx.execute("INSERT INTO one VALUES (0)")
    yield db
    await db.close()


@pytest.mark.servers
class TestSilence:
    LOCK = "UPDATE one SET n = n + 1"

    async def test_who_stands_still_amid_a_transaction_loses_what_he_has_locked_and_has_changed_nothing(
        self, strict: Database
    ) -> None:
        async def stands_still() -> None:
            async with strict.tx() as tx:
                await tx.execute(self.LOCK)
                async with strict.tx() as other:
                    await other.execute(self.LOCK)
                await tx.execute(self.LOCK)

        (raised,) = await asyncio.gather(stands_still(), return_exceptions=True)
        assert raised is not None
        assert passes(raised)
        async with strict.tx() as tx:
            assert await tx.fetchval("SELECT n FROM one") == 1

    async def test_one_transaction_may_be_given_less_or_more_and_the_next_is_given_what_all_are(
        self, strict: Database
    ) -> None:
        async with strict.tx(silence_s=30) as tx:
            await asyncio.sleep(0.8)
            await tx.execute(self.LOCK)

        async def as_all_are() -> None:
            async with strict.tx() as tx:
                await asyncio.sleep(0.8)
                await tx.execute(self.LOCK)

        (raised,) = await asyncio.gather(as_all_are(), return_exceptions=True)
        assert raised is not None

    async def test_who_works_for_long_between_two_statements_keeps_it(
        self, strict: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_module, "STAY_S", 0.05)
        async with strict.tx() as tx:
            await tx.execute(self.LOCK)
            for _ in range(10):
                time.sleep(0.1)
                await tx.stay()
            await tx.during(asyncio.sleep(1.0))
            with pytest.raises(ValueError, match="of the work"):
                await tx.during(fails())
            await tx.execute(self.LOCK)


async def fails() -> None:
    raise ValueError("of the work")


@pytest.mark.servers
async def test_who_gives_up_on_a_server_that_says_nothing_does_not_wait_for_its_rollback(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "ROLLBACK_S", 0.1)
    given_up, backend = asyncio.Event(), 0

    async def asks() -> None:
        nonlocal backend
        async with db.tx() as tx:
            backend = await tx.fetchval("SELECT pg_backend_pid()")
            os.kill(backend, signal.SIGSTOP)
            async with asyncio.timeout(0.2):
                await tx.execute("SELECT 1")

    asking = asyncio.ensure_future(asks())
    asking.add_done_callback(lambda _: given_up.set())
    try:
        async with asyncio.timeout(database_module.COMMAND_S - 5):
            await given_up.wait()
            assert isinstance(asking.exception(), TimeoutError)
            await db.ping()
    finally:
        os.kill(backend, signal.SIGCONT)
        await asyncio.gather(asking, return_exceptions=True)
