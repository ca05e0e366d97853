"""Documents that are published: versions that never come again, and a snapshot that never goes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
from chassis import documents, outbox
from chassis.auth import Actor
from chassis.db import Database, Tx
from chassis.documents import DOCUMENTS_DDL, RELEASE, Document, Edit
from chassis.health import Health
from chassis.outbox import OUTBOX_DDL, Refusal, Relay
from chassis.problems import Problem
from chassis.quota import Quota
from chassis.snapshot import KEPT_BYTES, PUBLISHERS, Snapshot, publishing

READER = Actor("ann", "viewer")

ROOM = Quota("note", 1 << 20, 1 << 20, 1 << 20, "/text")

pytestmark = pytest.mark.servers
Bodies = dict[str, Any]


class Store:
    """A table of documents, and what a reader of it sees: (version, bodies by key)."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.snapshot: Snapshot[tuple[int, Bodies]] = self.another()
        self.told = list[int]()
        self.relay = Relay(db, {RELEASE: self._tell}, Health())

    def another(self) -> Snapshot[tuple[int, Bodies]]:
        """As a replica has it that comes up now."""
        return Snapshot(self.db, self._build, Health(), ahead=self._ahead)

    async def _ahead(self) -> bool:
        """As if Redis said what was told."""
        async with self.db.tx() as tx:
            await documents.go_on_after(tx, max(self.told, default=0))
        return True

    async def _tell(self, payloads: Sequence[bytes]) -> list[Refusal]:
        self.told += map(int, payloads)
        return []

    @staticmethod
    def _build(version: int, found: list[Document], _: Any) -> tuple[int, Bodies]:
        return version, {d.key: d.body["text"] for d in found}

    async def save(self, text: str | None, expected: int | None, *, key: str = "a", actor: str = "ann") -> int:
        """The version saved; 0 when it was deleted."""
        edit = Edit("note", key, None if text is None else {"text": text}, expected, Actor(actor, "marketer"))
        async with publishing(self.db, self.snapshot, self.relay) as tx:
            saved = await documents.apply(tx, edit, quota=ROOM, fact=lambda *_: [])
        return saved.version if saved else 0

    async def head(self) -> int:
        async with self.db.tx() as tx:
            return await documents.head(tx)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    db = await Database.open(database, schema="public")
    async with db.tx() as tx:
        for statement in (*DOCUMENTS_DDL, *OUTBOX_DDL):
            await tx.execute(statement)
    made = Store(db)
    await made.snapshot.refresh()
    yield made
    await db.close()


class TestVersions:
    async def test_what_never_was_has_no_versions(self, store: Store) -> None:
        async with store.db.tx() as tx:
            with pytest.raises(Problem) as refused:
                await documents.history(tx, "note", "a", reader=READER)
        assert refused.value.status == 404

    async def test_a_document_made_again_goes_on_from_the_versions_of_the_old_one(self, store: Store) -> None:
        old = await store.save("old", None)
        old = await store.save("older", old)
        await store.save(None, old, actor="bob")
        new = await store.save("new", None, actor="mallory")
        async with store.db.tx() as tx:
            found = await documents.history(tx, "note", "a", reader=READER)
        told = [(h["body"]["text"], h["actor"], h["deleted"]) for h in found["versions"]]
        assert told == [
            ("new", "mallory", False), ("older", "bob", True), ("older", "ann", False), ("old", "ann", False),
        ]  # fmt: skip
        versions = [h["version"] for h in found["versions"]]
        assert versions == sorted(set(versions), reverse=True)
        assert new == versions[0]

    async def test_who_saw_a_deleted_document_cannot_save_over_or_delete_the_new_one(self, store: Store) -> None:
        seen = await store.save("old", None)
        await store.save(None, seen)
        await store.save("new", None)
        for text in ("mine", None):
            for version in (seen, seen + 1):
                with pytest.raises(Problem, match="changed meanwhile"):
                    await store.save(text, version)
        assert store.snapshot.value[1] == {"a": "new"}


class TestTold:
    async def test_readers_are_told_before_who_saves_is(self, store: Store) -> None:
        for text, expected in (("one", None), ("two", 1)):  # nothing relays here but who saves
            await store.save(text, expected)
            assert store.told[-1] == store.snapshot.version

    @pytest.mark.parametrize("how", ["away", "slow"])
    async def test_readers_that_cannot_be_told_keep_nobody_from_saving_and_are_told_later(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        async def fails(_: Sequence[bytes]) -> list[Refusal]:
            await asyncio.sleep(30 if how == "slow" else 0)
            raise OSError

        monkeypatch.setattr(outbox, "AT_ONCE_S", 0.05)
        with monkeypatch.context() as ours:
            ours.setitem(store.relay._handlers, RELEASE, fails)
            async with asyncio.timeout(5):
                await store.save("new", None)
        assert store.told == []
        await store.relay.drain()
        assert store.told == [store.snapshot.version]

    async def test_a_database_that_went_back_goes_on_after_what_was_seen(self, store: Store) -> None:
        await store.save("kept", None)
        before = store.snapshot.version
        async with store.db.tx() as tx:
            await documents.go_on_after(tx, before)
        await store.snapshot.refresh()
        assert store.snapshot.version == before, "it did not"
        async with store.db.tx() as tx:
            await documents.go_on_after(tx, before + 5)
        await store.snapshot.refresh()
        assert store.snapshot.version == before + 6
        await store.save("more", 1)
        assert store.told[-1] == before + 7

    async def test_nor_does_what_is_saved_before_anybody_noticed_hide_behind_what_was_lost(self, store: Store) -> None:
        for n in range(3):
            await store.save(f"{n}", n or None)
        lost = store.snapshot.version
        async with store.db.tx() as tx:  # as a standby has it that was behind by two
            await tx.execute("UPDATE head SET version = version - 2")
            await tx.execute("DELETE FROM release WHERE version > $1", lost - 2)
            await tx.execute("DELETE FROM document_version WHERE version > 1")
            await tx.execute("""UPDATE document SET version = 1, body = '{"text": "0"}'""")
        await store.save("after", 1)
        assert store.snapshot.value == (store.told[-1], {"a": "after"})
        assert store.told[-1] > lost

    @pytest.mark.parametrize(
        ("head", "version", "text"),
        [("version = version - 1", 1, "one"), ("stamp = gen_random_uuid()", 2, "other")],
        ids=["behind", "another one saved under its number"],
    )
    async def test_it_is_noticed_without_anybody_saving(self, store: Store, head: str, version: int, text: str) -> None:
        await store.save("one", None)
        await store.save("lost", 1)
        lost = store.snapshot.version
        async with store.db.tx() as tx:
            await tx.execute(f"UPDATE head SET {head}")
            await tx.execute("UPDATE document SET version = $1, body = $2", version, json.dumps({"text": text}))
        await store.snapshot.refresh()
        assert store.snapshot.value == (lost + 1, {"a": text})
        await store.snapshot.refresh()
        assert store.snapshot.version == lost + 1

    async def test_what_a_replica_saves_that_has_seen_nothing_has_no_number_that_readers_know(
        self, store: Store
    ) -> None:
        await store.save("one", None)
        await store.save("lost", 1)
        lost = store.told[-1]
        async with store.db.tx() as tx:
            await tx.execute("UPDATE head SET version = version - 1, stamp = gen_random_uuid()")
            await tx.execute("""UPDATE document SET version = 1, body = '{"text": "one"}'""")
            await tx.execute("DELETE FROM release WHERE version = $1", lost)
            await tx.execute("DELETE FROM document_version WHERE version = 2")
        store.snapshot = store.another()
        await store.save("other", 1)
        assert store.told[-1] > lost
        assert store.snapshot.value == (store.told[-1], {"a": "other"})


class TestSnapshot:
    async def test_versions_share_the_documents_that_are_the_same(self, store: Store) -> None:
        for key in ("a", "b", "c"):
            await store.save(f"old {key}", None, key=key)
        before = {document.key: document for _, document in store.snapshot._read.values()}
        await store.save("new b", 1, key="b")
        await store.save(None, 1, key="c")
        after = {document.key: document for _, document in store.snapshot._read.values()}
        assert after["a"] is before["a"]
        assert (after.keys(), after["b"].body) == ({"a", "b"}, {"text": "new b"})
        assert store.snapshot.value[1] == {"a": "old a", "b": "new b"}

    async def test_versions_before_are_kept_as_long_as_they_take_little(self, store: Store) -> None:
        """However fast somebody saves."""
        await store.save("x" * 500_000, None)
        for seen in range(1, 12):
            await store.save(f"{seen % 10}" * 500_000, seen)
        newest = store.snapshot.version
        kept = [version for version in range(newest) if store.snapshot.at(version)]
        assert 0 < len(kept) <= KEPT_BYTES // 500_000
        assert kept[-1] == newest - 1

    async def test_a_slow_refresh_never_puts_an_older_version_back(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, reached, go = documents.read_anew, asyncio.Event(), asyncio.Event()

        async def slow(tx: Tx, known: Any) -> Any:
            found = await read(tx, known)
            if not reached.is_set():
                reached.set()
                await go.wait()
            return found

        async with store.db.tx() as tx:  # another process publishes
            edit = Edit("note", "a", {"text": "on"}, None, Actor("ann", "marketer"))
            await documents.apply(tx, edit, quota=ROOM, fact=lambda *_: [])
        monkeypatch.setattr(documents, "read_anew", slow)
        behind = asyncio.ensure_future(store.snapshot.refresh())
        await reached.wait()
        await store.save("off", 1)
        newest = store.snapshot.value
        assert newest[1] == {"a": "off"}
        go.set()
        await behind
        assert store.snapshot.value == newest

    async def test_a_snapshot_has_the_documents_of_its_version(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, seen = documents.read_anew, dict[int, Bodies]()
        for text, expected in (("one", None), ("two", 1)):
            await store.save(text, expected)
            seen[store.snapshot.value[0]] = store.snapshot.value[1]
        reader = Store(store.db)

        async def meanwhile(tx: Tx, known: Any) -> Any:
            monkeypatch.setattr(documents, "read_anew", read)
            await store.save("three", 2)
            return await read(tx, known)

        monkeypatch.setattr(documents, "read_anew", meanwhile)
        await reader.snapshot.refresh()
        version, bodies = reader.snapshot.value
        assert bodies == seen[version]
        await reader.snapshot.refresh()
        assert reader.snapshot.value[1] == {"a": "three"}


class TestOneThatStandsStill:
    async def test_who_waits_to_publish_keeps_no_connection_from_readers(self, store: Store, database: str) -> None:
        await store.save("on", None)
        stands = await asyncpg.connect(database)
        async with stands.transaction():
            await stands.execute("SELECT 1 FROM head FOR UPDATE")
            saves = [asyncio.create_task(store.save("off", None, key=f"k{n}")) for n in range(15)]
            async with asyncio.timeout(30):
                while await stands.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < PUBLISHERS:
                    await asyncio.sleep(0.02)
            await asyncio.gather(*(store.head() for _ in range(8)))
            assert not any(task.done() for task in saves)
        assert set(await asyncio.gather(*saves)) == {1}
        await stands.close()
