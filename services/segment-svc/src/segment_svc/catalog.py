"""Definitions of segments as they are saved, whatever of them is computed (definitions.py)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chassis.auth import Actor
from chassis.db import Tx
from chassis.pages import LIMIT, cut
from chassis.quota import Quota, size, text_of
from chassis.websites import seen, touched

from segment_svc.domain.definition import references

NEWEST = "segment s JOIN segment_version v ON v.segment_id = s.id AND v.version = s.version"
STORED = f"""SELECT s.id, s.key, s.version, p.version AS live_version, v.body::text, serves.body::text AS serves,
        (SELECT max(c.cause) FROM plan c WHERE c.segment_id = s.id) AS cause
    FROM {NEWEST} LEFT JOIN plan p ON p.segment_id = s.id AND p.live
    LEFT JOIN segment_version serves ON serves.segment_id = s.id AND serves.version = p.version AND p.version <> s.version
    """  # noqa: S608 - constants
NEXT = f"""SELECT s.key, v.bytes FROM {NEWEST}
    WHERE s.key > $1 AND {seen("$2")} ORDER BY s.key LIMIT $3 + 1"""  # noqa: S608 - constants
OLDER = f"""SELECT version, bytes FROM segment_version
    WHERE segment_id = $1 AND ($2::int IS NULL OR version < $2) AND {seen("$3")}
    ORDER BY version DESC LIMIT $4 + 1"""  # noqa: S608 - constants
OTHERS = f"SELECT v.websites, v.bytes FROM {NEWEST} WHERE s.key <> $2"  # noqa: S608 - constants
HIDDEN = f"SELECT s.key FROM {NEWEST} WHERE NOT {seen('$1')}"  # noqa: S608 - constants
# An API that is as full as it can be has to live in 256 MiB (deploy/k8s), a worker in 512 MiB with its 256 MiB of rows. With
# nothing in it each takes 110 MiB. Compiled, a definition takes up to seven times what it counts with, and may be there three
# times: live, being backfilled, and as the next release is compiled: 3 * 7 * 6 MiB = 126 MiB, and 6 MiB as they are read.
QUOTA = Quota("segment", 512 * 1024, 2048 * 1024, 6144 * 1024, "/condition")


@dataclass(frozen=True, slots=True)
class Stored:
    """A definition: `version` is the newest saved one, `live_version` the one that serves (None: none does).

    `quarantined`: why nobody is in it although it serves, or why the newest version could not start to. `serves`: the body that
    serves, when it is not the newest one.
    """

    id: int
    key: str
    version: int
    live_version: int | None
    body: dict[str, Any]
    quarantined: str | None = None
    serves: dict[str, Any] | None = None

    @property
    def serving(self) -> dict[str, Any] | None:
        """The body that serves; None while none does."""
        return self.body if self.live_version == self.version else self.serves

    @property
    def refers_to(self) -> set[str]:
        """The segments that it cannot be without, as it is to be, and as it serves until then."""
        active = self.body.get("status") == "active"
        newest = references(self.body.get("condition")) if active else frozenset()
        return {*newest, *references((self.serves or {}).get("condition"))}


def _stored(record: Any) -> Stored:
    body, serves = json.loads(record["body"]), record["serves"] and json.loads(record["serves"])
    return Stored(record["id"], record["key"], record["version"], record["live_version"], body, record["cause"], serves)


async def read(tx: Tx, key: str) -> Stored | None:
    """One definition by key."""
    record = await tx.fetchrow(f"{STORED} WHERE s.key = $1", key)
    return _stored(record) if record else None


async def read_all(tx: Tx) -> list[Stored]:
    """Every definition, by id."""
    return [_stored(r) for r in await tx.fetch(f"{STORED} ORDER BY s.id")]


async def page(tx: Tx, *, reader: Actor, after: str = "", limit: int = LIMIT) -> tuple[list[Stored], str | None]:
    """A page of the definitions that the reader may see, by key, and behind which one the next page begins."""
    keys, more = cut(await tx.fetch(NEXT, after, reader.websites, limit), limit, "key")
    found = await tx.fetch(f"{STORED} WHERE s.key = ANY($1::text[]) ORDER BY s.key", keys)
    return [_stored(r) for r in found], more


async def hidden(tx: Tx, reader: Actor) -> set[str]:
    """The keys of the segments of other websites than the reader's."""
    return {r["key"] for r in await tx.fetch(HIDDEN, reader.websites)}


async def versions(
    tx: Tx, segment_id: int, *, reader: Actor, after: int | None = None, limit: int = LIMIT
) -> dict[str, Any]:
    """A page of the history of a definition that the reader may see, newest first, and behind which one the next begins."""
    numbers, more = cut(await tx.fetch(OLDER, segment_id, after, reader.websites, limit), limit, "version")
    rows = await tx.fetch(
        """SELECT version, body::text, actor, saved_at FROM segment_version
           WHERE segment_id = $1 AND version = ANY($2::int[]) ORDER BY version DESC""",
        segment_id,
        numbers,
    )
    return {"versions": [{**r, "body": json.loads(r["body"])} for r in rows], "next": more}


async def insert(
    tx: Tx, key: str, version: int, *, segment_id: int | None, body: dict[str, Any], actor: str, now: int
) -> int:
    """Save version `version` of a segment, making the segment when `segment_id` is None; answers its id."""
    if segment_id is None:
        segment_id = await tx.fetchval("INSERT INTO segment (key, version) VALUES ($1, $2) RETURNING id", key, version)
    else:
        await tx.execute("UPDATE segment SET version = $2 WHERE id = $1", segment_id, version)
    await tx.execute(
        "INSERT INTO segment_version VALUES ($1, $2, $3::text::jsonb, $4, $5, $6, $7)",
        segment_id,
        version,
        text_of(body),
        actor,
        now,
        touched(body),
        size(body),
    )
    assert segment_id is not None
    return segment_id


def dependents(stored: Sequence[Stored], key: str) -> list[Stored]:
    """Segments that refer to `key`, directly or through others."""
    found: dict[str, Stored] = {}
    reached = {key}
    while True:
        new = [s for s in stored if s.key not in found and s.key != key and s.refers_to & reached]
        if not new:
            return list(found.values())
        found.update((s.key, s) for s in new)
        reached |= {s.key for s in new}
