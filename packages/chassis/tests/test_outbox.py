"""The outbox: a lot and a pace per channel, and what a receiver never takes is put aside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from chassis import outbox
from chassis.cache import VersionedWriter, open_redis, versioned
from chassis.db import Database, Patience
from chassis.health import Health
from chassis.outbox import OUTBOX_DDL, Refusal, Relay

servers = pytest.mark.servers


class Receiver:
    """A handler that fails as often as it is told to, and never takes what begins with `bad`."""

    def __init__(self, failures: int = 0) -> None:
        self.got: list[bytes] = []
        self.failures = failures

    async def __call__(self, payloads: Sequence[bytes]) -> list[Refusal]:
        if self.failures:
            self.failures -= 1
            raise OSError("away")
        self.got += [p for p in payloads if not p.startswith(b"bad")]
        return [Refusal(p, "bad") for p in payloads if p.startswith(b"bad")]


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    db = await Database.open(database, schema="public", patience=Patience(silence_s=60))
    async with db.tx() as tx:
        for statement in OUTBOX_DDL:
            await tx.execute(statement)
    yield db
    await db.close()


async def queue(db: Database, channel: str, *payloads: bytes) -> None:
    async with db.tx() as tx:
        await outbox.add(tx, channel, *payloads)


@servers
class TestOutbox:
    async def test_rows_of_a_rolled_back_transaction_never_leave_and_a_failed_handler_gets_them_again(
        self, db: Database
    ) -> None:
        receiver = Receiver(failures=1)
        with contextlib.suppress(RuntimeError):
            async with db.tx() as tx:
                await outbox.add(tx, "c", b"lost")
                raise RuntimeError
        await queue(db, "c", b"kept")
        relay = Relay(db, {"c": receiver}, Health())
        with pytest.raises(OSError, match="away"):
            await relay.step("c")
        assert await relay.step("c") == 1
        assert await relay.step("c") == 0
        assert receiver.got == [b"kept"]

    async def test_a_receiver_that_is_away_holds_up_no_other_channel_and_is_named(self, db: Database) -> None:
        away, here, health = Receiver(failures=10**6), Receiver(), Health()
        relay, stop = Relay(db, {"facts": away, "documents": here}, health), asyncio.Event()
        await queue(db, "facts", *(b"f%d" % n for n in range(500)))
        await queue(db, "documents", b"d")
        running = asyncio.ensure_future(relay.run(stop))
        while not here.got or "outbox facts" not in health.troubles():
            await asyncio.sleep(0.01)
        assert list(health.troubles()) == ["outbox facts"]
        away.failures = 0
        relay.wake()
        while len(away.got) < 500:
            await asyncio.sleep(0.01)
        stop.set()
        await running
        assert (here.got, health.troubles()) == ([b"d"], {})

    async def test_what_is_never_taken_is_put_aside_with_the_reason_and_the_rest_goes_on(self, db: Database) -> None:
        receiver = Receiver()
        await queue(db, "c", b"one", b"bad", b"two")
        await Relay(db, {"c": receiver}, Health()).drain()
        async with db.tx() as tx:
            aside = [tuple(r) for r in await tx.fetch("SELECT channel, payload, reason FROM undeliverable")]
            assert await tx.fetchval("SELECT count(*) FROM outbox") == 0
        assert (receiver.got, aside) == ([b"one", b"two"], [("c", b"bad", "bad")])

    async def test_a_process_that_stops_hands_on_what_was_committed_and_gives_up_on_who_is_away(
        self, db: Database
    ) -> None:
        away, here, stop = Receiver(failures=10**6), Receiver(), asyncio.Event()
        await queue(db, "a", b"1")
        await queue(db, "b", b"2")
        stop.set()
        await Relay(db, {"a": away, "b": here}, Health()).run(stop)
        assert here.got == [b"2"]

    async def test_a_slow_receiver_gets_less_at_a_time_until_it_keeps_up(
        self, db: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        got: list[bytes] = []

        async def slow(payloads: Sequence[bytes]) -> list[Refusal]:
            for payload in payloads:
                await asyncio.sleep(0.02)
                got.append(payload)
            return []

        monkeypatch.setattr(outbox, "HANDLER_S", 0.3)
        await queue(db, "c", *(b"%d" % n for n in range(100)))
        relay = Relay(db, {"c": slow}, Health())
        async with asyncio.timeout(30):
            while len(set(got)) < 100:
                with contextlib.suppress(TimeoutError):
                    await relay.step("c")
        async with db.tx() as tx:
            assert await tx.fetchval("SELECT count(*) FROM outbox") < 20

    async def test_rows_that_wait_long_are_a_trouble_whose_name_begins_with_the_outbox(self, db: Database) -> None:
        async def slow(_: Sequence[bytes]) -> list[Refusal]:
            await asyncio.sleep(0.01)
            return []

        health, stop = Health(), asyncio.Event()
        await queue(db, "c", *(b"%d" % n for n in range(1000)))
        async with db.tx() as tx:
            await tx.execute("UPDATE outbox SET created_at = now() - interval '1 hour'")
        seen: set[str] = set()
        running = asyncio.ensure_future(Relay(db, {"c": slow}, health).run(stop))
        async with asyncio.timeout(30):
            while not seen or health.troubles():
                seen |= set(health.troubles())
                await asyncio.sleep(0.001)
        stop.set()
        await running
        assert seen == {"outbox c age"}


@servers
class TestOneThatStandsStill:
    """A relay that stands still amid its handler keeps its rows from others for SILENCE_S, and does no harm when it goes on."""

    async def test_others_see_the_age_of_what_it_has_and_get_it_soon(
        self, db: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox, "HANDLER_S", 60)  # one that stands still does not look at its clock either
        monkeypatch.setattr(outbox, "SILENCE_S", 1.0)
        began, stop, health, here = asyncio.Event(), asyncio.Event(), Health(), Receiver()

        async def stands(_: Sequence[bytes]) -> list[Refusal]:
            began.set()
            await asyncio.sleep(60)
            return []

        await queue(db, "c", b"old")
        async with db.tx() as tx:
            await tx.execute("UPDATE outbox SET created_at = now() - interval '1 hour'")
        frozen = asyncio.ensure_future(Relay(db, {"c": stands}, Health()).step("c"))
        await began.wait()
        await queue(db, "c", b"new")
        seen: set[str] = set()
        running = asyncio.ensure_future(Relay(db, {"c": here}, health).run(stop))
        async with asyncio.timeout(30):
            while b"old" not in here.got:
                seen |= set(health.troubles())
                await asyncio.sleep(0.01)
        stop.set()
        await running
        assert (here.got, seen) == ([b"new", b"old"], {"outbox c age"})
        frozen.cancel()
        await asyncio.gather(frozen, return_exceptions=True)

    async def test_what_it_writes_when_it_goes_on_is_older_and_nothing_is_lost(
        self, db: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox, "HANDLER_S", 60)
        monkeypatch.setattr(outbox, "SILENCE_S", 1.0)
        redis, began, go_on = open_redis(redis_url), asyncio.Event(), asyncio.Event()
        writer = VersionedWriter(redis)

        async def write(payloads: Sequence[bytes]) -> list[Refusal]:
            parts = [payload.split() for payload in payloads]
            await writer.put_many([(key.decode(), int(version), b"") for key, version in parts])
            return []

        async def stands(payloads: Sequence[bytes]) -> list[Refusal]:
            began.set()
            await go_on.wait()
            return await write(payloads)

        await queue(db, "c", b"a 1", b"b 1")
        frozen = asyncio.ensure_future(Relay(db, {"c": stands}, Health()).step("c"))
        await began.wait()
        await queue(db, "c", b"a 2")
        healthy = Relay(db, {"c": write}, Health())
        async with asyncio.timeout(30):
            while await redis.get("b") is None:
                await healthy.step("c")
        assert [await redis.get(key) for key in "ab"] == [versioned(2, b""), versioned(1, b"")]
        go_on.set()
        (ended,) = await asyncio.gather(frozen, return_exceptions=True)
        assert isinstance(ended, Exception), "what it had is not its any more"
        assert [await redis.get(key) for key in "ab"] == [versioned(2, b""), versioned(1, b"")]
        async with db.tx() as tx:
            assert await tx.fetchval("SELECT count(*) FROM outbox") == 0
        await redis.aclose()
