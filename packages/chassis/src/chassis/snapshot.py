"""Everything a service has published, compiled once per version, and the versions before it for who still asks for them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from chassis import documents
from chassis.db import Database, Tx
from chassis.documents import RELEASE, Document, Stamped
from chassis.health import Health
from chassis.outbox import Relay
from chassis.problems import Problem
from chassis.service import FOLLOW_S, repeat
from chassis.turns import Turns

POLL_S = 0.25
# Who has the head locked, and who is next: the others wait without a connection, which readers need.
PUBLISHERS, PUBLISHERS_WAITING, PUBLISHERS_S = 2, 50, 10.0
KEPT, KEPT_S = 8, 60.0  # versions that are kept, and for how long, whichever is more
KEPT_BYTES = 4 << 20  # of memory that nothing but such versions has; what is more is left behind earlier
OWN_SHARE = 64  # a version of things that are all there anyway takes a part of their bytes: what it refers to them by
T = TypeVar("T")


class Past(NamedTuple, Generic[T]):
    """A version that another one came after, at a moment of the monotonic clock; the `bytes` that are kept for it alone."""

    version: int
    value: T
    over_s: float
    bytes: int


class Once(Generic[T]):
    """What is made of a document, once, for as long as anybody keeps the document: most versions share most of it."""

    def __init__(self, make: Callable[[Document], T]) -> None:
        self._make, self._made = make, WeakKeyDictionary[Document, T]()

    def __call__(self, document: Document) -> T:
        """What was made of it. Raises what making raises, each time."""
        if document not in self._made:
            self._made[document] = self._make(document)
        return self._made[document]


class Snapshot(Generic[T]):
    """Everything published, compiled by `build(version, documents, changes)`; `value` is swapped whole, for newer ones only."""

    def __init__(
        self,
        db: Database,
        build: Callable[[int, list[Document], list[dict[str, Any]]], T],
        health: Health,
        *,
        ahead: Callable[[], Awaitable[bool]],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ahead` has the head go on after what readers were told; answers whether anybody says what that is."""
        self._db, self._build, self._health, self._seconds = db, build, health, seconds
        self.ahead = ahead
        self._head = Stamped(-1, None)
        self._value: T | None = None
        self._past: deque[Past[T]] = deque()
        self._read: dict[int, tuple[str, Document]] = {}
        self.publishers = Turns(PUBLISHERS, waiting=PUBLISHERS_WAITING, patience_s=PUBLISHERS_S)

    @property
    def value(self) -> T:
        """The newest version. Raises Problem 503 before the first one."""
        if self._value is None:
            raise Problem("starting", 503, "The service is starting")
        return self._value

    @property
    def version(self) -> int:
        """Of the newest one."""
        return self._head.version

    @property
    def documents(self) -> list[Document]:
        """What is live in the newest version, by kind and key."""
        return [document for _, document in self._read.values()]

    def at(self, version: int | None) -> T | None:
        """A version, by default the newest; None for one that is not here yet, or no more."""
        newest = self.value
        if version is None or version == self.version:
            return newest
        return next((past.value for past in self._past if past.version == version), None)

    async def refresh(self) -> None:
        """Load the head if it is newer than what we have. Of several at once, whichever ends last, the newest stays."""
        if not await self._look():
            async with self._db.tx() as tx:  # as it is when its turn comes: another task may have more by now
                await self.go_on(tx)
            await self._look()

    async def _look(self) -> bool:
        async with self._db.tx() as tx:
            await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # the documents of that version
            return await self.catch_up(tx)

    async def catch_up(self, tx: Tx) -> bool:
        """Load what is newer, in a transaction whose head and documents belong together; False when its head is none that may
        come after ours: the database went back, as it seems.
        """
        head = await documents.stamped(tx)
        if head.version <= self.version:
            return head == self._head
        read, changes = await documents.read_anew(tx, self._read), await documents.changes(tx)
        if head.version > self.version:
            gone = sum(
                d.bytes for number, (_, d) in self._read.items() if number not in read or read[number][1] is not d
            )
            own = gone + sum(d.bytes for d in self.documents) // OWN_SHARE
            self._read = read
            self._swap(head, self._build(head.version, self.documents, changes), own)
        return True

    async def go_on(self, tx: Tx) -> None:
        """A database that went back goes on after the version we have."""
        await documents.go_on_after(tx, *self._head)

    def _swap(self, head: Stamped, value: T, own: int) -> None:
        now_s = self._seconds()
        if self._value is not None:
            self._past.append(Past(self.version, self._value, now_s, own))
        while (len(self._past) >= KEPT and self._past[0].over_s < now_s - KEPT_S) or self._past_bytes() > KEPT_BYTES:
            self._past.popleft()
        self._value, self._head = value, head

    def _past_bytes(self) -> int:
        return sum(past.bytes for past in self._past)

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the head; while the database is away, the last snapshot serves."""

        async def work() -> bool:
            await self.refresh()
            return False

        await repeat(work, stop, name="postgres snapshot", idle_s=POLL_S, health=self._health, most_s=FOLLOW_S)


@asynccontextmanager
async def publishing(db: Database, snapshot: Snapshot[Any], relay: Relay) -> AsyncIterator[Tx]:
    """A transaction beside which nobody publishes, and before which the snapshot is the newest. Then this process serves what
    was published, and readers are told that there is something new: from here on they see it, whatever becomes of this process.
    What is saved first after a database went back has no number under which they know something else. Raises Problem 503 busy.
    """
    async with snapshot.publishers.of(RELEASE):
        said = await snapshot.ahead()
        async with db.tx() as tx:
            await documents.alone(tx)
            await snapshot.go_on(tx)
            await snapshot.catch_up(tx)
            yield tx
    await snapshot.refresh()
    if said:  # who said nothing just now keeps nobody waiting
        await relay.at_once(RELEASE, b"%d" % snapshot.version)
    relay.wake()
