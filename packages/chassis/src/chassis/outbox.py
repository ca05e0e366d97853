"""Facts leave through the transaction that made them: `add` in it, and a relay that hands rows on after commit.

Every channel has a lot and a pace of its own: one whose receiver is away holds up no other. What a receiver will never take
goes to the table `undeliverable` with the reason, and from there back into `outbox` when an operator says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from chassis.db import Database, Tx
from chassis.health import Health
from chassis.service import FOLLOW_S, repeat
from chassis.telemetry import OUTBOX_AGE, UNDELIVERABLE, get_logger

OUTBOX_DDL = (
    """CREATE TABLE outbox (
        id bigserial PRIMARY KEY, channel text NOT NULL, payload bytea NOT NULL, created_at timestamptz DEFAULT now()
    )""",
    "CREATE INDEX outbox_channel ON outbox (channel, id)",
    """CREATE TABLE undeliverable (
        id bigserial PRIMARY KEY, channel text NOT NULL, payload bytea NOT NULL, reason text NOT NULL,
        refused_at timestamptz DEFAULT now()
    )""",
)
# How old the oldest is, also when another relay has it.
AGE = "SELECT extract(epoch FROM now() - created_at)::float8 FROM outbox WHERE channel = $1 ORDER BY id LIMIT 1"
TAKE = f"""SELECT id, payload, ({AGE}) AS age FROM outbox
    WHERE channel = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED"""  # noqa: S608 - constants
# A relay that stands still amid its handler keeps its rows from others until the server ends its transaction.
MOST, IDLE_S, PATIENCE_S, HANDLER_S, SILENCE_S, AT_ONCE_S = 100, 0.5, 30.0, 4.0, 5.0, 1.0


class Refusal(NamedTuple):
    """A payload, or what of one, the receiver will never take, and why (a slug)."""

    payload: bytes
    reason: str


T = TypeVar("T")


def readable(payloads: Sequence[bytes], read: Callable[[bytes], Sequence[T]]) -> tuple[list[T], list[Refusal]]:
    """What `read` makes of payloads, and those it raises ValueError for."""
    found: list[T] = []
    refused: list[Refusal] = []
    for payload in payloads:
        try:
            found += read(payload)
        except ValueError:
            refused.append(Refusal(payload, "unreadable"))
    return found, refused


Handler = Callable[[Sequence[bytes]], Awaitable[Sequence[Refusal]]]
log = get_logger("outbox")


async def add(tx: Tx, channel: str, *payloads: bytes) -> None:
    """Queue payloads for the handler of `channel`, if and only if the transaction commits."""
    await tx.execute("INSERT INTO outbox (channel, payload) SELECT $1, unnest($2::bytea[])", channel, list(payloads))


class Relay:
    """Hands committed rows to their handlers, at least once, then deletes them. Any number may run.

    Two relays may hand on neighbouring rows in either order, and one that stood still what another one has handed on since, so
    receivers compare versions. A handler raises for what may pass; it is asked again, ever more slowly.
    """

    def __init__(self, db: Database, handlers: Mapping[str, Handler], health: Health) -> None:
        self._db, self._handlers, self._health = db, handlers, health
        self._wakes = {channel: asyncio.Event() for channel in handlers}
        self._ages: dict[str, float] = {}
        self._lots = dict.fromkeys(handlers, MOST)

    def wake(self) -> None:
        """Say that something was committed."""
        for event in self._wakes.values():
            event.set()

    async def at_once(self, channel: str, payload: bytes) -> None:
        """Hand on what was committed a moment ago, before anybody is told that it was. It stays in the outbox all the same: who
        is away now, or slow, gets it from there.
        """
        hand_on = self._handlers[channel]
        try:
            async with asyncio.timeout(AT_ONCE_S):
                await hand_on([payload])
        except Exception as error:
            log.warning("outbox_not_at_once", channel=channel, error=type(error).__name__)

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set and nothing is left, or what is left cannot be handed on."""
        async with asyncio.TaskGroup() as group:
            for channel in self._handlers:
                group.create_task(self._run(channel, stop), name=f"relay {channel}")

    async def _run(self, channel: str, stop: asyncio.Event) -> None:
        async def work() -> bool:
            moved = await self.step(channel)
            late = self._ages[channel] > PATIENCE_S
            self._health.set(f"outbox {channel} age", f"the oldest row waits over {PATIENCE_S:.0f} s" if late else None)
            return moved > 0

        wake = self._wakes[channel]
        name = f"outbox {channel}"
        await repeat(work, stop, name=name, idle_s=IDLE_S, health=self._health, wake=wake, most_s=FOLLOW_S)
        with contextlib.suppress(Exception):  # what cannot be handed on now stays for the next process
            while await self.step(channel):
                pass

    async def drain(self) -> int:
        """Hand on all there is, once through; answers how many rows that were."""
        total = 0
        while moved := sum([await self.step(channel) for channel in self._handlers]):
            total += moved
        return total

    async def step(self, channel: str) -> int:
        """Hand on one lot of a channel; answers how many rows it had."""
        async with self._db.tx(silence_s=SILENCE_S) as tx:
            rows = await tx.fetch(TAKE, channel, self._lots[channel])
            self._ages[channel] = rows[0]["age"] if rows else await tx.fetchval(AGE, channel) or 0.0
            OUTBOX_AGE.labels(channel=channel).set(self._ages[channel])
            if not rows:
                return 0
            try:
                async with asyncio.timeout(HANDLER_S):
                    refused = await self._handlers[channel]([r["payload"] for r in rows])
            except TimeoutError:  # a slow receiver gets less at a time, or it would never be done with any of it
                self._lots[channel] = max(1, len(rows) // 2)
                raise
            self._lots[channel] = min(MOST, self._lots[channel] * 2)
            if refused:
                await _put_aside(tx, channel, refused)
            await tx.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", [r["id"] for r in rows])
        return len(rows)


async def _put_aside(tx: Tx, channel: str, refused: Sequence[Refusal]) -> None:
    await tx.execute(
        "INSERT INTO undeliverable (channel, payload, reason) SELECT $1, * FROM unnest($2::bytea[], $3::text[])",
        channel,
        [r.payload for r in refused],
        [r.reason for r in refused],
    )
    for refusal in refused:
        UNDELIVERABLE.labels(channel=channel, reason=refusal.reason).inc()
        log.error("outbox_undeliverable", channel=channel, reason=refusal.reason, bytes=len(refusal.payload))
