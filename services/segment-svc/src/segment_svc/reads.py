"""Statements behind the read-only routes: members, profiles, why and since when, and progress of backfills."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from chassis.db import Database, Tx

EXPORT_PAGE, DRAWN_AT_ONCE, MOST_BYTES = 5000, 100, 8 << 20
DRAW = "SELECT profile FROM profile WHERE merged_into IS NULL ORDER BY random() LIMIT $1"


async def conditions(tx: Tx, keys: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """(key, websites and condition as saved last) of the segments of these keys, without their overrides, which may be many."""
    found = await tx.fetch(
        """SELECT s.key, jsonb_build_object('websites', v.body->'websites', 'condition', v.body->'condition')::text AS body
           FROM segment s JOIN segment_version v ON v.segment_id = s.id AND v.version = s.version
           WHERE s.key = ANY($1::text[]) ORDER BY s.key""",
        keys,
    )
    return [(r["key"], json.loads(r["body"])) for r in found]


async def members(tx: Tx, segment_id: int, *, after: str, most: int) -> list[dict[str, Any]]:
    """One page of the matched customers and visitors, in key order."""
    found = await tx.fetch(
        """SELECT profile, since, cause, definition_version FROM membership
           WHERE segment_id = $1 AND profile > $2 ORDER BY profile LIMIT $3""",
        segment_id,
        after,
        most,
    )
    return [dict(r) for r in found]


async def count(tx: Tx, segment_id: int) -> int:
    """How many members there are; the same rows `members` pages over."""
    value: int = await tx.fetchval("SELECT count(*) FROM membership WHERE segment_id = $1", segment_id)
    return value


async def export(db: Database, segment_id: int) -> AsyncIterator[str]:
    """The member list as CSV lines, a page in memory at a time."""
    yield _lines([["profile", "since", "cause", "definition_version"]])
    after = ""
    while True:
        async with db.tx() as tx:
            rows = await members(tx, segment_id, after=after, most=EXPORT_PAGE)
        if not rows:
            return
        yield _lines([[_harmless(r["profile"]), r["since"], r["cause"], r["definition_version"]] for r in rows])
        after = rows[-1]["profile"]


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()


def _harmless(cell: str) -> str:
    """A text no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


async def standing(tx: Tx, profile: str) -> list[dict[str, Any]]:
    """The segments a profile is a member of, by key, with since when and why."""
    found = await tx.fetch(
        """SELECT s.key AS segment, m.since, m.cause, m.definition_version FROM membership m
           JOIN segment s ON s.id = m.segment_id WHERE m.profile = $1 ORDER BY s.key""",
        profile,
    )
    return [dict(r) for r in found]


async def history(tx: Tx, profile: str, segment_id: int) -> list[dict[str, Any]]:
    """The latest transitions of a person for one segment, newest first."""
    found = await tx.fetch(
        """SELECT at, entered, cause, definition_version, source_event FROM transition
           WHERE profile = $1 AND segment_id = $2 ORDER BY at DESC, id DESC LIMIT 20""",
        profile,
        segment_id,
    )
    return [dict(r) for r in found]


async def was_member(tx: Tx, profile: str, segment_id: int, at: int) -> bool:
    """Whether the person was in the segment at an instant, by the last transition up to it."""
    value = await tx.fetchval(
        """SELECT entered FROM transition WHERE profile = $1 AND segment_id = $2 AND at <= $3
           ORDER BY at DESC, id DESC LIMIT 1""",
        profile,
        segment_id,
        at,
    )
    return bool(value)


async def backfills(tx: Tx) -> list[dict[str, Any]]:
    """The latest backfills with their progress, newest first."""
    found = await tx.fetch(
        """SELECT b.id, b.status, b.done, b.total, b.entered, b.exited, b.created_at, b.finished_at,
                  ARRAY(SELECT key FROM segment s WHERE s.id = ANY(b.segments)) AS segments
           FROM backfill b ORDER BY b.id DESC LIMIT 20"""
    )
    return [dict(r) for r in found]


async def sample(tx: Tx, most: int) -> tuple[list[tuple[str, bytes]], int]:
    """(key, state) of up to `most` people drawn at random, of MOST_BYTES in all, and how many people there are."""
    total = await tx.fetchval("SELECT count(*) FROM profile WHERE merged_into IS NULL")
    keys = [r["profile"] for r in await tx.fetch(DRAW, most)]
    drawn: list[tuple[str, bytes]] = []
    for start in range(0, len(keys), DRAWN_AT_ONCE):
        if sum(len(state) for _, state in drawn) > MOST_BYTES:
            break
        part = keys[start : start + DRAWN_AT_ONCE]
        found = await tx.fetch("SELECT profile, state FROM profile WHERE profile = ANY($1::text[])", part)
        drawn += [(r["profile"], r["state"]) for r in found]
    return drawn, total


async def releases(tx: Tx, most: int) -> list[dict[str, Any]]:
    """The latest releases, oldest first: what each touched, and when (epoch ms)."""
    found = await tx.fetch("SELECT version, tags, at FROM release ORDER BY version DESC LIMIT $1", most)
    return [dict(r) for r in reversed(found)]
