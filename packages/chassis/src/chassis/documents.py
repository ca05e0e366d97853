"""Versioned JSON documents that somebody publishes: optimistic concurrency, history, and a version of the whole.

Every change raises the head, remembers the tags it touched, and tells others through the outbox. Readers keep a
Snapshot (snapshot.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chassis import outbox
from chassis.auth import Actor
from chassis.db import Tx, now_ms
from chassis.problems import Problem
from chassis.websites import theirs, touched, visible

RELEASE, FACTS = "release", "facts"
VERSION = re.compile(r'"?([0-9]{1,9})"?')
DOCUMENTS_DDL = (
    """CREATE TABLE document (
        id serial PRIMARY KEY, kind text NOT NULL, key text NOT NULL, version int NOT NULL, body text NOT NULL,
        UNIQUE (kind, key)
    )""",
    """CREATE TABLE document_version (
        kind text NOT NULL, key text NOT NULL, version int NOT NULL, body text NOT NULL, actor text NOT NULL,
        saved_at bigint NOT NULL, deleted boolean NOT NULL DEFAULT false, PRIMARY KEY (kind, key, version)
    )""",
    "CREATE TABLE head (one boolean PRIMARY KEY DEFAULT true CHECK (one), version bigint NOT NULL)",
    "INSERT INTO head (version) VALUES (1)",
    """CREATE TABLE release (
        version bigint PRIMARY KEY, tags text[] NOT NULL, websites text[] NOT NULL, at bigint NOT NULL, needs bigint,
        hard boolean NOT NULL
    )""",
)
LAST = "SELECT coalesce(max(version), 0) FROM document_version WHERE kind = $1 AND key = $2"


@dataclass(frozen=True, slots=True)
class Document:
    """One document as stored."""

    id: int
    kind: str
    key: str
    version: int
    body: dict[str, Any]

    def view(self) -> dict[str, Any]:
        """What the API answers."""
        return {"key": self.key, "version": self.version, **self.body}


@dataclass(frozen=True, slots=True)
class Edit:
    """A wanted state. `expected` is the version the editor saw, None for a new document; `body` None deletes.

    `needs`: the version of the segment definitions without which readers are not to follow; None for the newest that there is,
    whichever that may be. `soft`: what was so until now may be shown once more while it is fetched anew.
    """

    kind: str
    key: str
    body: dict[str, Any] | None
    expected: int | None
    actor: Actor
    tags: Sequence[str] = ()
    needs: int | None = 0
    soft: bool = False


def expected_version(if_match: str | None) -> int:
    """The version an If-Match header names. Raises Problem 428 without one, 412 for something else."""
    if if_match is None:
        raise Problem("precondition-required", 428, "Send the version you saw as If-Match")
    named = VERSION.fullmatch(if_match.strip())
    if named is None:
        raise Problem("stale-version", 412, "If-Match names no version")
    return int(named[1])


def _document(record: Any) -> Document:
    return Document(record["id"], record["kind"], record["key"], record["version"], json.loads(record["body"]))


async def read_all(tx: Tx, kind: str | None = None, *, reader: Actor | None = None) -> list[Document]:
    """Documents (of a kind), by kind and key; for a `reader` those that he may see."""
    found = await tx.fetch("SELECT * FROM document WHERE $1::text IS NULL OR kind = $1 ORDER BY kind, key", kind)
    return [document for document in map(_document, found) if visible(reader, document.body)]


async def read(tx: Tx, kind: str, key: str, *, reader: Actor | None = None) -> Document:
    """One document. Raises Problem 404, for one that the `reader` may not see, too."""
    found = await tx.fetchrow("SELECT * FROM document WHERE kind = $1 AND key = $2", kind, key)
    document = None if found is None else _document(found)
    if document is None or not visible(reader, document.body):
        raise Problem("not-found", 404, f"No such {kind}")
    return document


async def history(tx: Tx, kind: str, key: str, *, reader: Actor) -> list[dict[str, Any]]:
    """Who saved what, newest first, of the versions that the reader may see. Raises Problem 404 when there are none."""
    found = await tx.fetch(
        """SELECT version, body, actor, saved_at, deleted FROM document_version WHERE kind = $1 AND key = $2
           ORDER BY version DESC""",
        kind,
        key,
    )
    versions = [{**r, "body": json.loads(r["body"])} for r in found]
    shown = [version for version in versions if visible(reader, version["body"])]
    if not shown:
        raise Problem("not-found", 404, f"No such {kind}")
    return shown


async def apply(tx: Tx, edit: Edit, *, fact: Callable[[int, Sequence[str], int], Sequence[bytes]]) -> Document | None:
    """Make the edit and publish it. Raises Problem 403 not-your-website, 409 exists, 404 not-found (what the actor may not see,
    too), 412 stale-version.

    `fact(version, tags, now)` gives the payloads of the channel FACTS. A deletion has a version, too, and a new document with
    the key goes on from there: who has the old one open cannot save over the new one.
    """
    version: int = await tx.fetchval("UPDATE head SET version = version + 1 RETURNING version")
    now = await now_ms(tx)
    found = await tx.fetchrow("SELECT * FROM document WHERE kind = $1 AND key = $2", edit.kind, edit.key)
    _expect(edit, found)
    body = json.dumps(edit.body if edit.body is not None else json.loads(found["body"]))
    number = 1 + (await tx.fetchval(LAST, edit.kind, edit.key) if found is None else found["version"])
    if edit.body is None:
        await tx.execute("DELETE FROM document WHERE kind = $1 AND key = $2", edit.kind, edit.key)
    else:
        await tx.execute(
            """INSERT INTO document (kind, key, version, body) VALUES ($1, $2, $3, $4)
               ON CONFLICT (kind, key) DO UPDATE SET version = EXCLUDED.version, body = EXCLUDED.body""",
            edit.kind, edit.key, number, body,
        )  # fmt: skip
    await tx.execute(
        "INSERT INTO document_version VALUES ($1, $2, $3, $4, $5, $6, $7)",
        edit.kind, edit.key, number, body, edit.actor.subject, now, edit.body is None,
    )  # fmt: skip
    websites = touched(edit.body, None if found is None else json.loads(found["body"]))
    theirs(edit.actor, websites)
    await tx.execute(
        "INSERT INTO release VALUES ($1, $2, $3, $4, $5, $6)",
        version, list(edit.tags), websites, now, edit.needs, not edit.soft,
    )  # fmt: skip
    await outbox.add(tx, RELEASE, b"%d" % version)
    await outbox.add(tx, FACTS, *fact(version, edit.tags, now))
    return None if edit.body is None else await read(tx, edit.kind, edit.key)


def _expect(edit: Edit, found: Any) -> None:
    if edit.expected is None and found is not None:
        raise Problem("exists", 409, f"A {edit.kind} with this key exists", pointers=["/key"])
    if edit.expected is not None and (found is None or not visible(edit.actor, json.loads(found["body"]))):
        raise Problem("not-found", 404, f"No such {edit.kind}")
    if found is not None and edit.expected != found["version"]:
        raise Problem("stale-version", 412, "It was changed meanwhile", detail=f"It is at version {found['version']}")


async def head(tx: Tx) -> int:
    """The version of everything published."""
    version: int = await tx.fetchval("SELECT version FROM head")
    return version


async def go_on_after(tx: Tx, version: int) -> bool:
    """A database that went back (restored, or failed over to a standby that was behind) goes on after what readers have seen of
    it: what they are told is never below that. Answers whether it did.
    """
    return bool(await tx.fetchval("UPDATE head SET version = $1 + 1 WHERE version < $1 RETURNING true", version))


async def read_anew(tx: Tx, known: Mapping[int, tuple[str, Document]]) -> dict[int, tuple[str, Document]]:
    """Every document by its id, by kind and key, with a digest of it; those that are `known` are the same objects, so that many
    versions of everything take little more than one.
    """
    stored = await tx.fetch("SELECT id, version || md5(body) AS digest FROM document ORDER BY kind, key")
    new = [r["id"] for r in stored if known.get(r["id"], ("",))[0] != r["digest"]]
    found = {r["id"]: _document(r) for r in await tx.fetch("SELECT * FROM document WHERE id = ANY($1::int[])", new)}
    return {r["id"]: (r["digest"], found[r["id"]]) if r["id"] in found else known[r["id"]] for r in stored}


async def alone(tx: Tx) -> None:
    """Beside this transaction nobody publishes: what is read in it stays true until it commits."""
    await tx.execute("SELECT 1 FROM head FOR UPDATE")


async def changes(tx: Tx, most: int = 200) -> list[dict[str, Any]]:
    """{version, tags, websites, needs, hard} of the latest versions, oldest first."""
    rows = await tx.fetch(
        "SELECT version, tags, websites, needs, hard FROM release ORDER BY version DESC LIMIT $1", most
    )
    return [dict(r) for r in reversed(rows)]
