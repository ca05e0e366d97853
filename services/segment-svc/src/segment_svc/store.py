"""Every statement over people: profiles, identities, memberships, transitions, activity and positions.

Each hot statement filters by, or is keyed by, `profile`, so that a distributed PostgreSQL can shard on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chassis.db import Tx

from segment_svc.domain import profile as people
from segment_svc.domain.activity import Activity
from segment_svc.domain.profile import Profile
from segment_svc.domain.ruleset import Timeline

# What the caller has of a version need not travel.
LOAD = """SELECT p.profile, p.website, p.merged_into, p.version, p.next_flip_at,
    CASE WHEN p.version <> u.version THEN p.atoms END AS atoms,
    CASE WHEN p.version <> u.version THEN p.document END AS document,
    CASE WHEN p.version <> u.version THEN p.state END AS state
    FROM unnest($1::text[], $2::bigint[]) AS u (profile, version) JOIN profile AS p ON p.profile = u.profile
    ORDER BY p.profile FOR UPDATE OF p"""
# Loaded rows are locked; a new row that another transaction created first has a version already and is not counted.
SAVE = """INSERT INTO profile AS p
    (profile, website, merged_into, version, next_flip_at, updated_at, atoms, document, state)
    SELECT u.profile, u.website, u.merged_into, u.version, u.next_flip_at, $9, u.atoms, u.document, u.state
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[])
         AS u (profile, website, merged_into, version, next_flip_at, atoms, document, state)
    ON CONFLICT (profile) DO UPDATE SET merged_into = EXCLUDED.merged_into, version = EXCLUDED.version,
        next_flip_at = EXCLUDED.next_flip_at, updated_at = EXCLUDED.updated_at, atoms = EXCLUDED.atoms,
        document = EXCLUDED.document, state = EXCLUDED.state
    WHERE p.version < EXCLUDED.version"""
CLAIM = """INSERT INTO profile (profile, website, version, updated_at, atoms, state)
    VALUES ($1, $2, 0, 0, '', $3) ON CONFLICT DO NOTHING"""
ENTER = """INSERT INTO membership (profile, segment_id, since, cause, definition_version)
    SELECT * FROM unnest($1::text[], $2::smallint[], $3::bigint[], $4::text[], $5::int[])
    ON CONFLICT (profile, segment_id) DO UPDATE SET since = EXCLUDED.since, cause = EXCLUDED.cause,
        definition_version = EXCLUDED.definition_version"""
LEAVE = """DELETE FROM membership AS m USING unnest($1::text[], $2::smallint[]) AS u (profile, segment_id)
    WHERE m.profile = u.profile AND m.segment_id = u.segment_id"""
IDENTITIES = "SELECT profile, identity FROM identity WHERE profile = ANY($1::text[])"
DUE = """SELECT profile FROM profile WHERE next_flip_at <= $1 ORDER BY next_flip_at LIMIT $2"""
FENCE = """UPDATE position AS p SET next_offset = u.next_offset
    FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[]) AS u (topic, partition, expected, next_offset)
    WHERE p.topic = u.topic AND p.partition = u.partition AND p.next_offset = u.expected"""


@dataclass(slots=True)
class Row:
    """One profile as stored: `atoms` is the bitset at the last evaluation, `document` what readers were given.

    Kept in memory only: `size`, bytes of stored state; `coming`, what the rules said of the profile before the events
    of the types `touched`; `names`, every identity of the person, the own key first (none: not looked up).
    """

    key: str
    website: str
    profile: Profile
    version: int = 0
    atoms: int = 0
    next_flip_at: int | None = None
    document: bytes | None = None
    merged_into: str | None = None
    size: int = 0
    coming: Timeline | None = None
    touched: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)


class Recent:
    """Rows as last committed, of the people who were active last: they need not be read, decoded and evaluated again whole.

    A row is right as long as its version is the one in PostgreSQL, which `load` compares under the lock. It is taken out to
    be worked on and put back after the commit, so what a failed transaction did to it is gone with it. At most
    `most_bytes` of stored state are kept (in memory a few times that), the longest untouched going first.
    """

    def __init__(self, most_bytes: int = 32 * 1024 * 1024) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._rows: dict[str, Row] = {}

    def take(self, key: str) -> Row | None:
        """The row of a key, which is the caller's from now on."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._bytes -= row.size
        return row

    def put(self, rows: Iterable[Row]) -> None:
        """Keep rows as they were committed."""
        for row in rows:
            self.take(row.key)
            self._rows[row.key] = row
            self._bytes += row.size
        while self._bytes > self._most_bytes:
            self.take(next(iter(self._rows)))


class Transition(NamedTuple):
    """A person entered or left a segment at `at` (epoch ms), for `cause` (event, time, definition, merge, late_data)."""

    profile: str
    segment_id: int
    at: int
    entered: bool
    cause: str
    definition_version: int
    source_event: str | None


@dataclass(frozen=True, slots=True)
class Advance:
    """A consumer's step over one partition: it read from `expected` and would next read `next_offset`."""

    topic: str
    partition: int
    expected: int
    next_offset: int


class Conflict(Exception):
    """Somebody else changed a profile of the batch first; the batch is taken again from the start."""


def to_bytes(bits: int) -> bytes:
    """Little-endian bytes of a bitset; PostgreSQL's get_bit numbers them the same way."""
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def _row(record: Any) -> Row:
    key, website, merged_into, version, next_flip_at, atoms, document, state = record
    return Row(
        key, website, people.decode(state), version, int.from_bytes(atoms, "little"), next_flip_at, document, merged_into,
        len(state),
    )  # fmt: skip


async def load(tx: Tx, keys: Iterable[str], recent: Recent | None = None) -> dict[str, Row]:
    """Lock and read profiles in key order, following merges; a merged key maps to the row it became part of.

    Rows of `recent` that are still right are taken out of it instead of being read.
    """
    rows: dict[str, Row] = {}
    wanted = sorted(set(keys))
    while wanted:
        had = {key: row for key in wanted if (row := recent.take(key))} if recent else {}
        for record in await tx.fetch(LOAD, wanted, [had[k].version if k in had else -1 for k in wanted]):
            key = record["profile"]
            rows[key] = had[key] if record["state"] is None else _row(record)
        wanted = sorted({r.merged_into for r in rows.values() if r.merged_into and r.merged_into not in rows})
    return rows


def resolve(rows: Mapping[str, Row], key: str) -> Row | None:
    """The row a key belongs to now, following merges; None for a stranger."""
    row = rows.get(key)
    while row is not None and row.merged_into:
        row = rows[row.merged_into]
    return row


async def save(tx: Tx, rows: Sequence[Row], *, now: int) -> None:
    """Write rows whose `version` was already raised by one. Raises Conflict when any of them moved meanwhile."""
    states = [people.encode(r.profile) for r in rows]
    done = await tx.execute(
        SAVE,
        [r.key for r in rows],
        [r.website for r in rows],
        [r.merged_into for r in rows],
        [r.version for r in rows],
        [r.next_flip_at for r in rows],
        [to_bytes(r.atoms) for r in rows],
        [r.document for r in rows],
        states,
        now,
    )
    if int(done.rsplit(" ", 1)[1]) != len(rows):
        raise Conflict
    for row, state in zip(rows, states, strict=True):
        row.size = len(state)


async def claim(tx: Tx, row: Row) -> None:
    """Make a new row ours before its version may jump (a merge does that). Raises Conflict when it exists already."""
    done = await tx.execute(CLAIM, row.key, row.website, people.encode(row.profile))
    if done != "INSERT 0 1":
        raise Conflict


async def alias(tx: Tx, profile: str, identity: str, *, since: int) -> None:
    """Say that `identity` now belongs to `profile`, and to no other profile any more."""
    await tx.execute("DELETE FROM identity WHERE identity = $1 AND profile <> $2", identity, profile)
    await tx.execute("INSERT INTO identity VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", profile, identity, since)


async def identities(tx: Tx, profiles: Sequence[str]) -> dict[str, list[str]]:
    """Every identity of each profile, its own key first: a reader may ask under any of them."""
    found = {key: [key] for key in profiles}
    for profile, identity in await tx.fetch(IDENTITIES, profiles):
        found[profile].append(identity)
    return found


async def name(tx: Tx, rows: Sequence[Row]) -> None:
    """Look up the names of rows that have none yet."""
    nameless = [r for r in rows if not r.names]
    if nameless:
        found = await identities(tx, [r.key for r in nameless])
        for row in nameless:
            row.names = found[row.key]


async def record(tx: Tx, moves: Sequence[Transition], *, now: int) -> None:
    """Append transitions and bring `membership` to the state after them (the last move of a pair wins)."""
    columns = [(m.profile, m.segment_id, m.at, m.entered, m.cause, m.definition_version, m.source_event) for m in moves]
    await tx.copy(
        "transition",
        [(*c, now) for c in columns],
        ["profile", "segment_id", "at", "entered", "cause", "definition_version", "source_event", "recorded_at"],
    )
    last = {(m.profile, m.segment_id): m for m in moves}
    entered = [m for m in last.values() if m.entered]
    left = [m for m in last.values() if not m.entered]
    if entered:
        await tx.execute(
            ENTER,
            [m.profile for m in entered],
            [m.segment_id for m in entered],
            [m.at for m in entered],
            [m.cause for m in entered],
            [m.definition_version for m in entered],
        )
    if left:
        await tx.execute(LEAVE, [m.profile for m in left], [m.segment_id for m in left])


async def keep(tx: Tx, entries: Sequence[tuple[str, int, Activity]]) -> None:
    """Append activity: (profile, received_at, what was done). It never holds a duplicate."""
    await tx.copy(
        "activity",
        [(key, received, a.at, a.id_hash, a.type, a.website, a.props) for key, received, a in entries],
        ["profile", "received_at", "occurred_at", "id_hash", "type", "website", "props"],
    )


async def fence(tx: Tx, steps: Sequence[Advance]) -> bool:
    """Compare-and-set the read positions; False when another consumer of a partition was faster."""
    done = await tx.execute(
        FENCE,
        [s.topic for s in steps],
        [s.partition for s in steps],
        [s.expected for s in steps],
        [s.next_offset for s in steps],
    )
    return int(done.rsplit(" ", 1)[1]) == len(steps)


async def positions(tx: Tx, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Where each partition is to be read from; a partition never seen starts at 0."""
    topics, numbers = [t for t, _ in partitions], [p for _, p in partitions]
    await tx.execute(
        """INSERT INTO position SELECT t, p, 0 FROM unnest($1::text[], $2::int[]) AS u (t, p) ON CONFLICT DO NOTHING""",
        topics,
        numbers,
    )
    found = await tx.fetch(
        """SELECT p.* FROM position p JOIN unnest($1::text[], $2::int[]) AS u (topic, partition)
           USING (topic, partition)""",
        topics,
        numbers,
    )
    return {(r["topic"], r["partition"]): r["next_offset"] for r in found}


async def due(tx: Tx, now: int, most: int) -> list[str]:
    """Profiles somebody must look at by `now` (epoch ms), the longest waiting first."""
    return [r["profile"] for r in await tx.fetch(DUE, now, most)]


async def documents(tx: Tx, after: str, most: int) -> list[tuple[str, int, bytes]]:
    """(profile, version, document) of the next people in key order who have one."""
    found = await tx.fetch(
        """SELECT profile, version, document FROM profile
           WHERE profile > $1 AND document IS NOT NULL ORDER BY profile LIMIT $2""",
        after,
        most,
    )
    return [(r["profile"], r["version"], r["document"]) for r in found]


async def page(tx: Tx, after: str, most: int) -> list[str]:
    """Keys of the next profiles in key order, merged ones left out."""
    found = await tx.fetch(
        "SELECT profile FROM profile WHERE profile > $1 AND merged_into IS NULL ORDER BY profile LIMIT $2", after, most
    )
    return [r["profile"] for r in found]
