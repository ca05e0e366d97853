"""Where every partition is to be read next: kept beside the data, moved in the transaction that writes what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chassis.bus_places import EARLIEST, Name, Position, Slice
from chassis.db import Database, Tx

# Rows are locked in one order, whoever owns them: a consumer that lost its partitions may still be at work.
FENCE = """WITH step AS (
        SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bool[])
            AS u (topic, partition, expected, next_offset, last_ms, read)
    ), locked AS (
        SELECT p.topic, p.partition FROM position p JOIN step USING (topic, partition)
        WHERE p.next_offset = step.expected ORDER BY p.topic, p.partition FOR UPDATE OF p
    )
    UPDATE position AS p SET next_offset = step.next_offset,
        last_ms = CASE WHEN step.read THEN step.last_ms ELSE p.last_ms END
    FROM step JOIN locked USING (topic, partition)
    WHERE p.topic = step.topic AND p.partition = step.partition AND p.next_offset = step.expected"""
SEEN = "INSERT INTO position SELECT t, p, $3 FROM unnest($1::text[], $2::int[]) AS u (t, p) ON CONFLICT DO NOTHING"
READ = (
    """SELECT p.* FROM position p JOIN unnest($1::text[], $2::int[]) AS u (topic, partition) USING (topic, partition)"""
)
CHOOSE = """UPDATE position SET next_offset = $3, last_ms = NULL, halted = NULL
    WHERE topic = $1 AND partition = $2 AND halted IS NOT NULL RETURNING topic"""
HALT = "UPDATE position SET halted = $4 WHERE topic = $1 AND partition = $2 AND next_offset = $3"


async def fence(tx: Tx, steps: Sequence[Slice]) -> bool:
    """Compare-and-set the read positions; False when another consumer of a partition was faster."""
    done = await tx.execute(
        FENCE,
        [s.topic for s in steps],
        [s.partition for s in steps],
        [s.expected for s in steps],
        [s.next_offset for s in steps],
        [s.records[-1].timestamp_ms if s.records and s.records[-1].timestamp_ms >= 0 else None for s in steps],
        [bool(s.records) for s in steps],
    )
    return int(done.rsplit(" ", 1)[1]) == len(steps)


class StoredPositions:
    """chassis.bus_places.Positions in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def read(self, partitions: Sequence[Name]) -> Mapping[Name, Position]:
        """See Positions."""
        topics, numbers = [t for t, _ in partitions], [p for _, p in partitions]
        async with self._db.tx() as tx:
            await tx.execute(SEEN, topics, numbers, EARLIEST)
            found = await tx.fetch(READ, topics, numbers)
        return {(r["topic"], r["partition"]): Position(r["next_offset"], r["last_ms"], r["halted"]) for r in found}

    async def found(self, partition: Name, first: int) -> None:
        """See Positions."""
        async with self._db.tx() as tx:
            await tx.execute(
                "UPDATE position SET next_offset = $4 WHERE topic = $1 AND partition = $2 AND next_offset = $3",
                *partition, EARLIEST, first,
            )  # fmt: skip

    async def halt(self, partition: Name, at: int, cause: str) -> None:
        """See Positions."""
        async with self._db.tx() as tx:
            await tx.execute(HALT, *partition, at, cause)


async def read_all(tx: Tx) -> list[dict[str, Any]]:
    """Every partition, where it stands and why it is halted, if it is."""
    found = await tx.fetch(
        "SELECT topic, partition, next_offset, last_ms, halted FROM position ORDER BY topic, partition"
    )
    return [dict(r) for r in found]


async def choose(tx: Tx, topic: str, partition: int, offset: int) -> bool:
    """Let a halted partition go on at an offset or at EARLIEST; False for one that is not halted."""
    return await tx.fetchval(CHOOSE, topic, partition, offset) is not None


async def known(tx: Tx, topic: str, partition: int) -> bool:
    """Whether anybody ever read a partition."""
    return await tx.fetchval("SELECT 1 FROM position WHERE topic = $1 AND partition = $2", topic, partition) is not None
