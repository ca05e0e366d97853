"""Facts leave through the transaction that made them: `add` in it, and a relay that hands rows on after commit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

from chassis.db import Database, Tx
from chassis.telemetry import OUTBOX_FAILURES, get_logger

OUTBOX_DDL = """CREATE TABLE outbox (
    id bigserial PRIMARY KEY, channel text NOT NULL, payload bytea NOT NULL, created_at timestamptz DEFAULT now()
)"""
TAKE = "SELECT id, channel, payload FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED"
MOST = 100
IDLE_S = 0.5
Handler = Callable[[Sequence[bytes]], Awaitable[None]]
log = get_logger("outbox")


async def add(tx: Tx, channel: str, payload: bytes) -> None:
    """Queue a payload for the handler of `channel`, if and only if the transaction commits."""
    await tx.execute("INSERT INTO outbox (channel, payload) VALUES ($1, $2)", channel, payload)


class Relay:
    """Hands committed rows to their handlers, at least once, then deletes them. Any number may run.

    Two relays may hand on neighbouring rows in either order, so receivers compare versions.
    """

    def __init__(self, db: Database, handlers: Mapping[str, Handler]) -> None:
        self._db, self._handlers = db, handlers
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Say that something was committed."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set and nothing is left; come back with a growing pause after a failure."""
        failures = 0
        while True:
            try:
                moved = await self.step()
                failures = 0
            except Exception as error:
                failures += 1
                OUTBOX_FAILURES.inc()
                log.warning("outbox_failed", error=type(error).__name__, failures=failures)
                if stop.is_set():
                    return
                await asyncio.sleep(min(5.0, 0.05 * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                continue
            if moved:
                continue
            if stop.is_set():
                return
            await self._idle(stop)

    async def _idle(self, stop: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(stop.wait())]
        await asyncio.wait(waits, timeout=IDLE_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._wake.clear()

    async def step(self) -> int:
        """Hand on one lot; answers how many rows it had."""
        async with self._db.tx() as tx:
            rows = await tx.fetch(TAKE, MOST)
            for channel, handler in self._handlers.items():
                payloads = [r["payload"] for r in rows if r["channel"] == channel]
                if payloads:
                    await handler(payloads)
            if rows:
                await tx.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", [r["id"] for r in rows])
        return len(rows)
