"""PostgreSQL through SQLAlchemy's engine, with the asyncpg connection of the transaction at hand for batches."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

# Classes of SQLSTATE that blame what was sent (54: it is too large for the server); every other one (connection, lock,
# resources, schema, operator) passes or is an operator's to mend. 54001 is the depth of the server's stack.
BLAMES_THE_DATA, TOO_COMPLEX = ("21", "22", "23", "54"), "54001"
COMMAND_S, STAY_S, BREATH_S, ROLLBACK_S = 35.0, 2.0, 0.005, 2.0
CLOCK_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"  # what time it is, in epoch ms
NOW_MS = f"SELECT {CLOCK_MS}"
SILENCE = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{ms:.0f}ms'"
T = TypeVar("T")
# asyncpg says InternalClientError, which is none of its InterfaceErrors, when a connection ends as its next statement begins.
AWAY = (asyncpg.InternalClientError, OSError, MemoryError, SQLAlchemyError)


def passes(error: BaseException) -> bool:
    """Whether an error of the database may be gone at the next try, whatever was sent."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] not in BLAMES_THE_DATA or state == TOO_COMPLEX
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)  # a parameter that has no encoding is one
    return isinstance(error, AWAY)


# For `problems.install`: an error of these kinds that passes is nobody's fault who asked.
PASSING = ((asyncpg.PostgresError, asyncpg.InterfaceError, *AWAY), passes)


class TooLong(Exception):
    """A transaction works longer than it may: it is to be done with less."""


class Tx:
    """One transaction. `sa` is SQLAlchemy's connection; the methods go straight to asyncpg ($1 parameters)."""

    def __init__(self, sa: AsyncConnection, driver: Any, most_s: float | None = None) -> None:
        self.sa, self._driver, self._most_s = sa, driver, most_s
        self._behind: asyncio.Task[None] | None = None
        self._heard_s, self._breath_s, self._began_s = time.monotonic(), 0.0, 0.0

    async def behind(self, statement: Coroutine[Any, Any, None]) -> None:
        """Send a statement of this transaction and go on while the server works.

        What it raises, the next statement raises, or the end of the transaction.
        """
        await self.settle()
        self._behind = asyncio.create_task(statement)
        await asyncio.sleep(0)

    async def settle(self) -> None:
        """Wait for the statement sent last."""
        behind = self._behind
        if behind is not None and behind is not asyncio.current_task():
            self._behind = None
            await behind

    async def drop(self) -> None:
        """Stop the statement sent last: the transaction is rolled back, and nobody waits for what it would have done."""
        behind, self._behind = self._behind, None
        if behind is not None:
            behind.cancel()
            await asyncio.gather(behind, return_exceptions=True)

    async def stay(self) -> None:
        """For who works long between two statements, ever again: others have their turn of the loop, and the server ends what
        says nothing (Patience.silence_s). Raises TooLong after `most_s` of it (see Database.tx). Costs nothing within BREATH_S.
        """
        now = time.monotonic()
        if now - self._breath_s < BREATH_S:
            return
        self._began_s = self._began_s or now
        if self._most_s is not None and now - self._began_s > self._most_s:
            raise TooLong
        if now - self._heard_s > STAY_S:
            await self._be_heard()
        await asyncio.sleep(0)
        self._breath_s = time.monotonic()

    async def _be_heard(self) -> None:
        await self.execute("SELECT 1")
        self._heard_s = time.monotonic()

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """What is done beside the loop, however long that takes, for who has to keep what is locked meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([task], timeout=STAY_S))[0]:
                await self._be_heard()
            return task.result()
        finally:
            task.cancel()

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        """All rows."""
        await self.settle()
        return await self._driver.fetch(sql, *args)  # type: ignore[no-any-return]

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        """The first row, or None."""
        await self.settle()
        return await self._driver.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """The first value of the first row, or None."""
        await self.settle()
        return await self._driver.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        """Run a statement; answers PostgreSQL's command tag, such as `UPDATE 3`."""
        await self.settle()
        return await self._driver.execute(sql, *args)  # type: ignore[no-any-return]

    async def copy(self, table: str, records: Iterable[Sequence[Any]], columns: Sequence[str]) -> None:
        """Append rows by COPY."""
        await self.settle()
        await self._driver.copy_records_to_table(table, records=records, columns=list(columns))


async def now_ms(tx: Tx) -> int:
    """What time it is (epoch ms) by the server's clock: the one that all replicas have."""
    now: int = await tx.fetchval(NOW_MS)
    return now


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds one waits for a connection and for a lock, and the server for who says nothing amid a transaction: so long
    somebody who stands still can keep others from what he has locked. Who works on says so (Tx.stay)."""

    connection_s: float = 5.0
    lock_s: float = 10.0
    silence_s: float = 10.0


PATIENCE = Patience()


def engine_of(url: str, *, schema: str, pool_size: int = 10, patience: Patience = PATIENCE) -> AsyncEngine:
    """An engine whose sessions see `schema` and give up on a statement after 30 s."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            url = "postgresql+asyncpg://" + url.removeprefix(scheme)
    settings = {
        "search_path": schema, "statement_timeout": "30000", "lock_timeout": f"{patience.lock_s * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{patience.silence_s * 1000:.0f}",
    }  # fmt: skip
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=patience.connection_s,
        isolation_level="AUTOCOMMIT",  # Database.tx opens the transaction itself, on the driver
        connect_args={"server_settings": settings, "timeout": 5, "command_timeout": COMMAND_S},
    )


class Database:
    """A pool of connections to one schema."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    async def open(cls, url: str, *, schema: str, pool_size: int = 10, patience: Patience = PATIENCE) -> Database:
        """Make the pool; connections are made when they are needed. `url` is postgresql://..."""
        return cls(engine_of(url, schema=schema, pool_size=pool_size, patience=patience))

    @asynccontextmanager
    async def tx(self, *, silence_s: float | None = None, most_s: float | None = None) -> AsyncIterator[Tx]:
        """One transaction: committed at the end of the block, rolled back when it raises. `silence_s`: its own, see Patience.
        `most_s`: so long it may work in memory, see Tx.stay.

        A connection of which that is not certain (the statement was cancelled, or took too long) is thrown away: the next
        who got it would be in a transaction that is not theirs, with its locks.
        """
        connection, driver = await self._checkout()
        certain = False
        try:
            await driver.execute("BEGIN" if silence_s is None else SILENCE.format(ms=silence_s * 1000))
            tx = Tx(connection, driver, most_s)
            try:
                yield tx
                await tx.settle()
            except BaseException:
                await tx.drop()
                with contextlib.suppress(TimeoutError):  # who says nothing is not waited for once more
                    async with asyncio.timeout(ROLLBACK_S):
                        await driver.execute("ROLLBACK")
                        certain = True
                raise
            await driver.execute("COMMIT")
            certain = True
        finally:
            await _give_back(connection, driver, certain)

    async def once(self, sql: str, *args: Any) -> Any:
        """The first value of one statement, which is a transaction by itself."""
        connection, driver = await self._checkout()
        certain = False
        try:
            found = await driver.fetchval(sql, *args)
            certain = True
        finally:
            await _give_back(connection, driver, certain)
        return found

    async def _checkout(self) -> tuple[AsyncConnection, Any]:
        """A connection that is still open: after a restart of the server the pool holds dead ones."""
        while True:
            connection = await self._engine.connect()
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            if not driver.is_closed():
                return connection, driver
            await connection.invalidate()
            await connection.close()

    async def ping(self) -> None:
        """Raise unless the database answers."""
        async with self.tx() as tx:
            await tx.fetchval("SELECT 1")

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


async def _give_back(connection: AsyncConnection, driver: Any, certain: bool) -> None:
    if not certain:
        driver.terminate()  # without a word: the server rolls back
        await connection.invalidate()
    await connection.close()
