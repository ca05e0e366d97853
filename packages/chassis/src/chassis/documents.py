"""Versioned JSON documents that somebody publishes: optimistic concurrency, history, and a version of the whole.

Every change raises the head, remembers the tags it touched, and tells others through the outbox. Readers keep a
Snapshot (snapshot.py) of what is live: what has a `status` is so when that is `live`. All else is read when it is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from chassis import outbox
from chassis.auth import Actor
from chassis.db import Tx, now_ms
from chassis.pages import LIMIT, cut
from chassis.problems import Problem
from chassis.quota import Quota, text_of
from chassis.websites import seen, theirs, touched, visible

RELEASE, FACTS = "release", "facts"
VERSION = re.compile(r'("?)([0-9]{1,9})\1')
DOCUMENTS_DDL = (
    """CREATE TABLE document (
        id serial PRIMARY KEY, kind text NOT NULL, key text NOT NULL, version int NOT NULL, body text NOT NULL,
        websites text[] NOT NULL DEFAULT '{}', bytes int NOT NULL DEFAULT 0,
        live boolean NOT NULL GENERATED ALWAYS AS (coalesce(body::json ->> 'status', 'live') = 'live') STORED,
        UNIQUE (kind, key)
    )""",
    """CREATE TABLE document_version (
        kind text NOT NULL, key text NOT NULL, version int NOT NULL, body text NOT NULL, actor text NOT NULL,
        saved_at bigint NOT NULL, deleted boolean NOT NULL, websites text[] NOT NULL,
        PRIMARY KEY (kind, key, version)
    )""",
    """CREATE TABLE head (
        one boolean PRIMARY KEY DEFAULT true CHECK (one), version bigint NOT NULL, stamp uuid NOT NULL DEFAULT gen_random_uuid()
    )""",
    "INSERT INTO head (version) VALUES (1)",
    """CREATE TABLE release (
        version bigint PRIMARY KEY, tags text[] NOT NULL, websites text[] NOT NULL, at bigint NOT NULL, needs bigint,
        hard boolean NOT NULL
    )""",
)
RAISE = "UPDATE head SET version = version + 1, stamp = gen_random_uuid() RETURNING version"
GO_ON = """UPDATE head SET version = $1 + 1, stamp = gen_random_uuid()
    WHERE version < $1 OR (version = $1 AND stamp <> $2) RETURNING true"""
LAST = "SELECT coalesce(max(version), 0) FROM document_version WHERE kind = $1 AND key = $2"
OTHERS = "SELECT websites, bytes FROM document WHERE kind = $2 AND key <> $3"
NEXT = f"""SELECT key, octet_length(body) AS bytes FROM document
    WHERE kind = $1 AND key > $2 AND {seen("$3")} ORDER BY key LIMIT $4 + 1"""  # noqa: S608 - constants
OLDER = f"""SELECT version, octet_length(body) AS bytes FROM document_version
    WHERE kind = $1 AND key = $2 AND ($3::int IS NULL OR version < $3) AND {seen("$4")}
    ORDER BY version DESC LIMIT $5 + 1"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Document:
    """One document as stored, and the bytes that it counts with. Each is itself alone."""

    id: int
    kind: str
    key: str
    version: int
    body: dict[str, Any]
    bytes: int = 0

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


class Stamped(NamedTuple):
    """A version of everything, and a random mark of the change that made it."""

    version: int
    stamp: UUID | None


def expected_version(if_match: str | None) -> int:
    """The version an If-Match header names. Raises Problem 428 without one, 412 for something else."""
    if if_match is None:
        raise Problem("precondition-required", 428, "Send the version you saw as If-Match")
    named = VERSION.fullmatch(if_match.strip())
    if named is None:
        raise Problem("stale-version", 412, "If-Match names no version")
    return int(named[2])


def _document(record: Any) -> Document:
    return Document(
        record["id"], record["kind"], record["key"], record["version"], json.loads(record["body"]), record["bytes"]
    )


async def find(
    tx: Tx, kind: str, *, keys: Sequence[str] | None = None, naming: str | None = None, reader: Actor | None = None
) -> list[Document]:
    """Documents of a kind, by key: of these keys, those in whose text a name stands, for a `reader` those that he may see."""
    found = await tx.fetch(
        """SELECT * FROM document WHERE kind = $1 AND ($2::text[] IS NULL OR key = ANY($2))
           AND ($3::text IS NULL OR strpos(body, $3) > 0) ORDER BY key""",
        kind, keys, naming,
    )  # fmt: skip
    return [document for document in map(_document, found) if visible(reader, document.body)]


async def page(
    tx: Tx, kind: str, *, reader: Actor, after: str = "", limit: int = LIMIT
) -> tuple[list[Document], str | None]:
    """A page of the documents of a kind that the reader may see, by key, and behind which one the next page begins."""
    found = await tx.fetch(NEXT, kind, after, reader.websites, limit)
    keys, more = cut(found, limit, "key")
    return await find(tx, kind, keys=keys), more


async def read(tx: Tx, kind: str, key: str, *, reader: Actor | None = None) -> Document:
    """One document. Raises Problem 404, for one that the `reader` may not see, too."""
    found = await tx.fetchrow("SELECT * FROM document WHERE kind = $1 AND key = $2", kind, key)
    document = None if found is None else _document(found)
    if document is None or not visible(reader, document.body):
        raise Problem("not-found", 404, f"No such {kind}")
    return document


async def history(
    tx: Tx, kind: str, key: str, *, reader: Actor, after: int | None = None, limit: int = LIMIT
) -> dict[str, Any]:
    """A page of who saved what, newest first, of the versions that the reader may see, and behind which one the next begins.

    Raises Problem 404 when there are none.
    """
    found = await tx.fetch(OLDER, kind, key, after, reader.websites, limit)
    if not found and after is None:
        raise Problem("not-found", 404, f"No such {kind}")
    numbers, more = cut(found, limit, "version")
    rows = await tx.fetch(
        """SELECT version, body, actor, saved_at, deleted FROM document_version
           WHERE kind = $1 AND key = $2 AND version = ANY($3::int[]) ORDER BY version DESC""",
        kind, key, numbers,
    )  # fmt: skip
    return {"versions": [{**r, "body": json.loads(r["body"])} for r in rows], "next": more}


async def apply(
    tx: Tx, edit: Edit, *, quota: Quota, fact: Callable[[int, Sequence[str], int], Sequence[bytes]]
) -> Document | None:
    """Make the edit and publish it. Raises Problem 403 not-your-website, 409 exists or quota-full, 404 not-found (what the actor
    may not see, too), 412 stale-version, 422 too-large.

    `fact(version, tags, now)` gives the payloads of the channel FACTS. A deletion has a version, too, and a new document with
    the key goes on from there: who has the old one open cannot save over the new one.
    """
    version: int = await tx.fetchval(RAISE)
    now = await now_ms(tx)
    found = await tx.fetchrow("SELECT * FROM document WHERE kind = $1 AND key = $2", edit.kind, edit.key)
    _expect(edit, found)
    old = None if found is None else json.loads(found["body"])
    websites = touched(edit.body, old)
    theirs(edit.actor, websites)
    number = 1 + (await tx.fetchval(LAST, edit.kind, edit.key) if found is None else found["version"])
    await _store(tx, edit, number, quota, old, now)
    await tx.execute(
        "INSERT INTO release VALUES ($1, $2, $3, $4, $5, $6)",
        version, list(edit.tags), websites, now, edit.needs, not edit.soft,
    )  # fmt: skip
    await outbox.add(tx, RELEASE, b"%d" % version)
    await outbox.add(tx, FACTS, *fact(version, edit.tags, now))
    return None if edit.body is None else await read(tx, edit.kind, edit.key)


async def _store(tx: Tx, edit: Edit, number: int, quota: Quota, old: Any, now: int) -> None:
    body, stays = old if edit.body is None else edit.body, touched(old if edit.body is None else edit.body)
    text = text_of(body)
    if edit.body is None:
        await tx.execute("DELETE FROM document WHERE kind = $1 AND key = $2", edit.kind, edit.key)
    else:
        await quota.check(tx, edit.body, old, OTHERS, edit.kind, edit.key)
        await tx.execute(
            """INSERT INTO document (kind, key, version, body, websites, bytes) VALUES ($1, $2, $3, $4, $5, $6)
               ON CONFLICT (kind, key) DO UPDATE SET version = EXCLUDED.version, body = EXCLUDED.body,
               websites = EXCLUDED.websites, bytes = EXCLUDED.bytes""",
            edit.kind, edit.key, number, text, stays, quota.weigh(edit.body),
        )  # fmt: skip
    await tx.execute(
        "INSERT INTO document_version VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        edit.kind, edit.key, number, text, edit.actor.subject, now, edit.body is None, stays,
    )  # fmt: skip


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


async def stamped(tx: Tx) -> Stamped:
    """The same, so that no other history of the database has it."""
    return Stamped(*await tx.fetchrow("SELECT version, stamp FROM head"))


async def go_on_after(tx: Tx, version: int, stamp: UUID | None = None) -> bool:
    """A database that went back (restored, or failed over to a standby that was behind) goes on after what readers have seen of
    it, by version and, where that is known, `stamp`: what they are told is never below that. Answers whether it did.
    """
    return bool(await tx.fetchval(GO_ON, version, stamp))


async def read_anew(tx: Tx, known: Mapping[int, tuple[str, Document]]) -> dict[int, tuple[str, Document]]:
    """What is live by its id, by kind and key, with a digest of it; what is `known` are the same objects, so that many versions
    of everything take little more than one.
    """
    stored = await tx.fetch("SELECT id, version || md5(body) AS digest FROM document WHERE live ORDER BY kind, key")
    new = [r["id"] for r in stored if known.get(r["id"], ("",))[0] != r["digest"]]
    found = {r["id"]: _document(r) for r in await tx.fetch("SELECT * FROM document WHERE id = ANY($1::int[])", new)}
    return {r["id"]: (r["digest"], found[r["id"]]) if r["id"] in found else known[r["id"]] for r in stored}


async def alone(tx: Tx) -> None:
    """Beside this transaction nobody publishes: what is read in it stays true until it commits."""
    await tx.execute("SELECT 1 FROM head FOR UPDATE")


async def changes(tx: Tx, most: int = 200) -> list[dict[str, Any]]:
    """{version, tags, websites, at, needs, hard} of the latest versions, oldest first; `at`: epoch ms, by the database."""
    rows = await tx.fetch("SELECT * FROM release ORDER BY version DESC LIMIT $1", most)
    return [dict(r) for r in reversed(rows)]
