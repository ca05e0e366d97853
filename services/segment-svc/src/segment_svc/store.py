"""Every statement over people: profiles, memberships, transitions and activity; their names are in identities.py.

Each hot statement filters by, or is keyed by, `profile`, so that a distributed PostgreSQL can shard on it; but UNALIAS, once
a login, asks who else has a name.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chassis import outbox
from chassis.db import Tx
from chassis.documents import FACTS
from chassis.telemetry import get_logger

from segment_svc import wire
from segment_svc.domain import profile as people
from segment_svc.domain.activity import Activity
from segment_svc.domain.profile import Profile
from segment_svc.domain.ruleset import Timeline
from segment_svc.domain.transition import Transition
from segment_svc.telemetry import TRANSITIONS

# What the caller has of a version need not travel.
LOAD = """SELECT p.profile, p.website, p.merged_into, p.version, p.stamp, p.next_flip_at, p.settled_at,
    CASE WHEN p.stamp <> u.stamp THEN p.atoms END AS atoms,
    CASE WHEN p.stamp <> u.stamp THEN p.document END AS document,
    CASE WHEN p.stamp <> u.stamp THEN p.state END AS state
    FROM unnest($1::text[], $2::bigint[]) AS u (profile, stamp) JOIN profile AS p ON p.profile = u.profile
    ORDER BY p.profile FOR UPDATE OF p"""
OWNERS = "SELECT merged_into FROM profile WHERE profile = ANY($1::text[]) AND merged_into IS NOT NULL"
COLUMNS = """unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[])
    AS u (profile, website, merged_into, version, next_flip_at, atoms, document, state)"""
# A new row that another transaction created first is not counted, and not waited for once that has committed.
INSERT = f"""INSERT INTO profile
    (profile, website, merged_into, version, stamp, next_flip_at, settled_at, atoms, document, state)
    SELECT u.profile, u.website, u.merged_into, u.version, $10, u.next_flip_at, $9, u.atoms, u.document, u.state
    FROM {COLUMNS} ON CONFLICT DO NOTHING"""  # noqa: S608 - constants
# Loaded rows are locked.
UPDATE = f"""UPDATE profile AS p SET merged_into = u.merged_into, version = u.version, stamp = $10,
        next_flip_at = u.next_flip_at, not_before = NULL, settled_at = $9, atoms = u.atoms, document = u.document, state = u.state
    FROM {COLUMNS} WHERE p.profile = u.profile"""  # noqa: S608 - constants
ENTER = """INSERT INTO membership (profile, segment_id, since, cause, definition_version)
    SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::int[])
    ON CONFLICT (profile, segment_id) DO UPDATE SET since = EXCLUDED.since, cause = EXCLUDED.cause,
        definition_version = EXCLUDED.definition_version"""
LEAVE = """DELETE FROM membership AS m USING unnest($1::text[], $2::int[]) AS u (profile, segment_id)
    WHERE m.profile = u.profile AND m.segment_id = u.segment_id"""
EMPTY = """WITH page AS (
        SELECT m.profile, greatest(p.settled_at, $4) AS at FROM membership m JOIN profile p USING (profile)
        WHERE m.segment_id = $1 AND m.profile > $2 ORDER BY m.profile LIMIT $3
    ), gone AS (
        DELETE FROM membership m USING page WHERE m.segment_id = $1 AND m.profile = page.profile RETURNING m.profile, page.at
    ) SELECT profile, at FROM gone ORDER BY profile"""
# Rows a live batch works on are left to it: it catches up with what is due itself.
DUE = """SELECT profile FROM profile WHERE next_flip_at IS NOT NULL AND greatest(next_flip_at, not_before) <= $1
    ORDER BY greatest(next_flip_at, not_before) LIMIT $2 FOR UPDATE SKIP LOCKED"""
# When the flip is due stays as it is: whoever can evaluate the person then begins there.
POSTPONE = """UPDATE profile SET next_flip_at = least(next_flip_at, greatest($2, settled_at)), not_before = $3
    WHERE profile = ANY($1::text[])"""
READ = """SELECT profile, website, merged_into, version, stamp, next_flip_at, settled_at, atoms, document, state FROM profile
    WHERE profile = ANY($1::text[])"""
MOVED, LATER_MS = 2000, 3600 * 1000
NO_STAMP = -1  # no row has it
NAME_BYTES = 120  # of a name in memory
log = get_logger("store")


@dataclass(slots=True)
class Row:
    """One profile as stored: `atoms` is the bitset at the last evaluation, which was as of `settled_at` (epoch ms); `document`
    is what readers were given.

    Kept in memory only: `new`, nobody has stored it; `size`, bytes of state (about, until it is saved); `coming`, what the
    rules said of the profile before the events of the types `touched`; `names`, every identity of the person, the own key first
    (none: not looked up).
    """

    key: str
    website: str
    profile: Profile
    version: int = 0
    stamp: int = NO_STAMP
    atoms: int = 0
    next_flip_at: int | None = None
    document: bytes | None = None
    merged_into: str | None = None
    settled_at: int = 0
    new: bool = False
    size: int = 0
    coming: Timeline | None = None
    touched: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)


class Recent:
    """Rows as last committed, of the people who were active last: they need not be read, decoded and evaluated again whole.

    A row is right as long as its stamp is the one in PostgreSQL, which `load` compares under the lock: a random number of each
    change, for a database that went back has the same versions of something else. It is taken out to be worked on and put back
    after the commit, so what a failed transaction did to it is gone with it. At most about `most_bytes` of memory are kept, the
    longest untouched going first.
    """

    def __init__(self, most_bytes: int = 256 * 1024 * 1024) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._rows: dict[str, tuple[Row, int]] = {}

    def take(self, key: str) -> Row | None:
        """The row of a key, which is the caller's from now on."""
        row, cost = self._rows.pop(key, (None, 0))
        self._bytes -= cost
        return row

    def put(self, rows: Iterable[Row]) -> None:
        """Keep rows as they were committed."""
        for row in rows:
            self.take(row.key)
            cost = _cost(row)
            self._rows[row.key] = row, cost
            self._bytes += cost
        while self._bytes > self._most_bytes:
            self.take(next(iter(self._rows)))


def _cost(row: Row) -> int:
    """Bytes a row takes in memory, about: its state a few times over, two numbers for every slot of the rules, and its names."""
    slots = len(row.coming.reading.values) if row.coming else 0
    return 2000 + 4 * row.size + 16 * slots + len(row.document or b"") + NAME_BYTES * len(row.names)


class Conflict(Exception):
    """Somebody else changed a profile of the batch first; the batch is taken again from the start."""


def to_bytes(bits: int) -> bytes:
    """Little-endian bytes of a bitset; PostgreSQL's get_bit numbers them the same way."""
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def _row(record: Any) -> Row:
    key, website, merged_into, version, stamp, next_flip_at, settled_at, atoms, document, state = record
    try:
        profile = people.decode(state)
    except ValueError as error:  # msgspec's errors are
        raise Unreadable from error
    return Row(
        key, website, profile, version, stamp, int.from_bytes(atoms, "little"), next_flip_at, document, merged_into,
        settled_at=settled_at, size=len(state),
    )  # fmt: skip


def unmet(key: str, website: str = "") -> Row:
    """The row of a key (v:... or c:...) of which nothing is known yet."""
    return Row(key, website, people.empty("customer" if key.startswith("c:") else "visitor"), new=True)


class Unreadable(Exception):
    """The stored state of a person cannot be read by this version of the service."""


async def load(
    tx: Tx, keys: Iterable[str], recent: Recent | None = None, *, postponing: int | None = None
) -> dict[str, Row]:
    """Lock and read profiles, all in one key order, and those they were merged into with them.

    Rows of `recent` that are still right are taken out of it instead of being read. Raises Conflict when somebody merged
    one of them meanwhile: locking its owner afterwards would be out of order. Raises Unreadable for a person whose state
    cannot be read, and NewerState; `postponing` (now, epoch ms) leaves both out, to be looked at again later.
    """
    wanted = set(keys)
    visitors = [key for key in wanted if key.startswith("v:")]
    if visitors:
        wanted.update([r["merged_into"] for r in await tx.fetch(OWNERS, visitors)])
    if not wanted:
        return {}
    names = sorted(wanted)
    had = {key: row for key in names if (row := recent.take(key))} if recent else {}
    rows: dict[str, Row] = {}
    odd: dict[str, bool] = {}
    for record in await tx.fetch(LOAD, names, [had[k].stamp if k in had else NO_STAMP for k in names]):
        key = record["profile"]
        try:
            rows[key] = had[key] if record["state"] is None else _row(record)
        except (Unreadable, people.NewerState) as error:
            if postponing is None:
                raise
            odd[key] = isinstance(error, Unreadable)
    if any(odd.values()):
        log.error("profile_unreadable", profiles=sum(odd.values()))
    if odd and postponing is not None:
        await postpone(tx, list(odd), postponing)
    if any(r.merged_into and r.merged_into not in rows for r in rows.values()):
        raise Conflict
    return rows


async def look(tx: Tx, identity: str) -> Row | None:
    """The row an identity belongs to, as it is, without keeping anybody from it; None for a stranger."""
    for _ in range(2):
        found = await tx.fetchrow(READ, [identity])
        if found is None or not found["merged_into"]:
            return _row(found) if found else None
        identity = found["merged_into"]
    return None


def resolve(rows: Mapping[str, Row], key: str) -> Row | None:
    """The row a key belongs to now, following merges; None for a stranger."""
    row = rows.get(key)
    while row is not None and row.merged_into:
        row = rows[row.merged_into]
    return row


def new_stamp() -> int:
    """Of a change that no other history has."""
    return secrets.randbits(63)


async def save(tx: Tx, rows: Sequence[Row], *, now: int) -> None:
    """Write rows whose `version` was already raised. Raises Conflict when a new one exists by now."""
    stamp = new_stamp()
    for statement, some in ((INSERT, [r for r in rows if r.new]), (UPDATE, [r for r in rows if not r.new])):
        if not some:
            continue
        states = [people.encode(r.profile) for r in some]
        done = await tx.execute(
            statement,
            [r.key for r in some],
            [r.website for r in some],
            [r.merged_into for r in some],
            [r.version for r in some],
            [r.next_flip_at for r in some],
            [to_bytes(r.atoms) for r in some],
            [r.document for r in some],
            states,
            now,
            stamp,
        )
        if int(done.rsplit(" ", 1)[1]) != len(some):
            raise Conflict
        for row, state in zip(some, states, strict=True):
            row.size, row.new, row.settled_at, row.stamp = len(state), False, now, stamp


async def record(tx: Tx, moves: Sequence[Transition]) -> None:
    """Append transitions and bring `membership` to the state after them (the last move of a pair wins)."""
    await _append(tx, moves)
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


async def _append(tx: Tx, moves: Sequence[Transition]) -> None:
    await tx.copy("transition", list(moves), list(Transition._fields))


async def announce(tx: Tx, moves: Sequence[Transition], keys: Mapping[int, str], *, now: int) -> None:
    """Say that people moved, if and only if the transaction commits; `keys` of the segments by id."""
    await outbox.add(tx, FACTS, *wire.membership_facts(moves, keys, now=now))
    for (cause, entered), count in Counter((move.cause, move.entered) for move in moves).items():
        TRANSITIONS.labels(cause=cause, entered=str(entered).lower()).inc(count)


async def move_all(tx: Tx, statement: str, move: Transition, key: str, *more: Any) -> int:
    """Move many people alike, a page in memory at a time; answers how many.

    `statement` moves the next people in key order, and answers (profile, at): $1 segment, $2 after whom, $3 how many, $4 when,
    then `more`. `at` is not before they were settled, by whosever clock. `move` is what it is for each; `key` is the segment's.
    """
    after, total = "", 0
    while found := await tx.fetch(statement, move.segment_id, after, MOVED, move.at, *more):
        moves = [move._replace(profile=r["profile"], at=r["at"]) for r in found]
        await _append(tx, moves)
        await announce(tx, moves, {move.segment_id: key}, now=move.at)
        after, total = moves[-1].profile, total + len(moves)
    return total


async def empty(tx: Tx, segment_id: int, *, version: int, cause: str, now: int) -> int:
    """Everybody leaves a segment, each with a transition and a fact; answers how many."""
    key = await tx.fetchval("SELECT key FROM segment WHERE id = $1", segment_id)
    return await move_all(tx, EMPTY, Transition("", segment_id, now, False, cause, version, None), key)


async def keep(tx: Tx, entries: Sequence[tuple[str, int, Activity]]) -> None:
    """Append activity: (profile, received_at, what was done). It never holds a duplicate."""
    await tx.copy(
        "activity",
        [(key, received, a.at, a.id_hash, a.type, a.website, a.props) for key, received, a in entries],
        ["profile", "received_at", "occurred_at", "id_hash", "type", "website", "props"],
    )


async def due(tx: Tx, now: int, most: int) -> list[str]:
    """Profiles somebody must look at by `now` (epoch ms), the longest waiting first."""
    return [r["profile"] for r in await tx.fetch(DUE, now, most)]


async def postpone(tx: Tx, keys: Sequence[str], now: int) -> None:
    """Look at people again in an hour, and not before, unless something else brings them to what the rules say."""
    await tx.execute(POSTPONE, list(keys), now, now + LATER_MS)


async def documents(tx: Tx, after: str, most: int) -> list[tuple[str, int, bytes]]:
    """(profile, version, document) of the next people in key order who have one."""
    found = await tx.fetch(
        """SELECT profile, version, document FROM profile
           WHERE profile > $1 AND document IS NOT NULL ORDER BY profile LIMIT $2""",
        after,
        most,
    )
    return [(r["profile"], r["version"], r["document"]) for r in found]
