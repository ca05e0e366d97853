"""What is stored has a bound in bytes: of one, of a website, of what is of all websites, of everybody; lists come in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import AsyncMock

import pytest
from chassis import documents, pages
from chassis.auth import Actor
from chassis.db import Database
from chassis.documents import DOCUMENTS_DDL, Edit
from chassis.health import Health
from chassis.outbox import OUTBOX_DDL
from chassis.pages import cut
from chassis.problems import Problem
from chassis.quota import OWN_BYTES, VALUE_BYTES, Quota, size
from chassis.snapshot import Snapshot

pytestmark = pytest.mark.servers
ANN = Actor("ann", "marketer")
EMPTY = size({"text": "", "websites": ["a"]})
QUOTA = Quota("note", one=EMPTY + 1000, website=2 * EMPTY + 1500, all=3 * EMPTY + 2500, part="/text")


class Notes:
    """Notes of a size, of websites, and what a reader keeps of them."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.kept: Snapshot[list[str]] = Snapshot(
            db, lambda _, found, __: [d.key for d in found], Health(), ahead=AsyncMock(return_value=True)
        )

    async def save(self, key: str, text: int | str | None, *websites: str, seen: int | None = None, **more: Any) -> Any:
        """Nothing, or (slug, pointer) of why it is refused."""
        written = "x" * text if isinstance(text, int) else text
        body = None if text is None else {"text": written, "websites": list(websites), **more}
        try:
            async with self.db.tx() as tx:
                await documents.apply(tx, Edit("note", key, body, seen, ANN), quota=QUOTA, fact=lambda *_: [])
        except Problem as refused:
            return refused.status, refused.slug, [e["pointer"] for e in refused.errors]
        await self.kept.refresh()
        return None

    async def page(self, *websites: str, **more: Any) -> tuple[list[str], str | None]:
        async with self.db.tx() as tx:
            found, after = await documents.page(tx, "note", reader=Actor("bob", "viewer", websites), **more)
        return [d.key for d in found], after

    async def versions(self, *websites: str, **more: Any) -> tuple[list[int], int | None]:
        async with self.db.tx() as tx:
            said = await documents.history(tx, "note", "a", reader=Actor("bob", "viewer", websites), **more)
        return [v["version"] for v in said["versions"]], said["next"]


@pytest.fixture
async def notes(database: str) -> AsyncIterator[Notes]:
    db = await Database.open(database, schema="public")
    async with db.tx() as tx:
        for statement in (*DOCUMENTS_DDL, *OUTBOX_DDL):
            await tx.execute(statement)
    yield Notes(db)
    await db.close()


FULL = (409, "quota-full")


class TestRoom:
    async def test_one_is_only_so_large(self, notes: Notes) -> None:
        assert await notes.save("a", 1001, "a") == (422, "too-large", ["/text"])
        assert await notes.save("a", 1000, "a") is None
        assert await notes.save("b", "😀" * 250, "b") is None, "a character is as many bytes as it is in UTF-8"
        assert await notes.save("c", "😀" * 251, "c") == (422, "too-large", ["/text"])

    def test_very_small_things_count_too(self) -> None:
        assert size({}) > OWN_BYTES
        many = {"names": [""] * 100}
        assert size(many) - size({"names": []}) >= 100 * VALUE_BYTES

    async def test_a_website_is_only_so_full_and_no_other_notices(self, notes: Notes) -> None:
        assert [await notes.save(key, 750, "a") for key in ("a", "b")] == [None, None]
        assert await notes.save("c", 0, "b", "a") == (*FULL, ["/websites/0"])  # in the order of their names
        assert await notes.save("c", 0, "b") is None

    async def test_what_is_of_all_websites_has_a_share_too(self, notes: Notes) -> None:
        assert [await notes.save(key, 700) for key in ("a", "b")] == [None, None]
        assert await notes.save("c", 500) == (*FULL, ["/websites"])
        assert await notes.save("c", 500, "a") is None

    async def test_everybody_together_has_only_so_much(self, notes: Notes) -> None:
        assert [await notes.save(key, 800, key) for key in ("a", "b", "c")] == [None] * 3
        assert await notes.save("d", 0, "d") == (*FULL, ["/text"])
        assert await notes.save("c", None, seen=1) is None
        assert await notes.save("d", 0, "d") is None

    async def test_what_does_not_grow_is_never_refused_nor_is_switching_off(self, notes: Notes) -> None:
        assert [await notes.save(key, 686, "a", status="live") for key in ("a", "b")] == [None, None]
        assert await notes.save("a", 687, "a", seen=1, status="live") == (*FULL, ["/websites/0"])
        async with notes.db.tx() as tx:  # as it may have been before there was a bound
            await tx.execute("UPDATE document SET bytes = bytes + 10000")
        assert await notes.save("a", 686, "a", seen=1, status="switched-off") is None
        assert await notes.save("a", 685, "a", seen=2, status="switched-off") is None
        assert await notes.save("a", 685, "a", "b", seen=3, status="switched-off") == (*FULL, ["/websites/0"])

    async def test_moving_to_a_website_needs_room_there(self, notes: Notes) -> None:
        assert [await notes.save(key, 750, "a") for key in ("a", "b")] == [None, None]
        assert await notes.save("c", 300, "b") is None
        assert await notes.save("c", 300, "a", seen=1) == (*FULL, ["/websites/0"])

    async def test_readers_keep_what_is_live_and_nothing_else(self, notes: Notes) -> None:
        for key, status in (("a", "draft"), ("b", "live"), ("c", "disabled")):
            assert await notes.save(key, 1, status=status) is None
        assert await notes.save("d", 1, "a") is None
        assert notes.kept.value == ["b", "d"]
        assert await notes.save("b", 1, seen=1, status="draft") is None
        assert notes.kept.value == ["d"]


class TestPages:
    async def test_a_list_comes_in_pages_of_what_the_reader_may_see(self, notes: Notes) -> None:
        for key, websites in (("a", ["a"]), ("b", []), ("c", ["b"]), ("d", ["a"])):
            assert await notes.save(key, 1, *websites) is None
        assert await notes.page() == (["a", "b", "c", "d"], None)
        assert await notes.page(limit=4) == (["a", "b", "c", "d"], None)
        assert await notes.page(limit=3) == (["a", "b", "c"], "c")
        assert await notes.page(limit=3, after="c") == (["d"], None)
        assert await notes.page("a", limit=2) == (["a", "b"], "b")
        assert await notes.page("a", limit=2, after="b") == (["d"], None)
        assert await notes.page("a", after="d") == ([], None)

    async def test_a_history_comes_in_pages_too(self, notes: Notes) -> None:
        for number in range(5):
            assert await notes.save("a", 1, "ab"[number % 2], seen=number or None) is None
        assert await notes.versions(limit=3) == ([5, 4, 3], 3)
        assert await notes.versions(limit=3, after=3) == ([2, 1], None)
        assert await notes.versions("b") == ([4, 2], None)
        assert await notes.versions("b", limit=1) == ([4], 4)
        assert await notes.versions(after=1) == ([], None)
        with pytest.raises(Problem, match="No such note"):
            await notes.versions("c")

    async def test_a_page_has_only_so_many_bytes(self, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
        for key in "abc":
            assert await notes.save(key, 500, key) is None
        assert await notes.save("a", 501, "a", seen=1) is None
        monkeypatch.setattr(pages, "MOST_BYTES", 1200)
        assert await notes.page() == (["a", "b"], "b")
        assert await notes.versions() == ([2, 1], None)
        monkeypatch.setattr(pages, "MOST_BYTES", 600)
        assert await notes.page(after="b") == (["c"], None)
        assert await notes.versions() == ([2], 2)

    def test_what_is_larger_than_a_page_is_one(self) -> None:
        rows = [{"key": key, "bytes": pages.MOST_BYTES + 1} for key in "abc"]
        assert [cut(rows[n:], 9, "key") for n in range(4)] == [(["a"], "a"), (["b"], "b"), (["c"], None), ([], None)]
