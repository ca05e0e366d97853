"""The hot path's connection: reads of a tick are one, what is remembered is true, and with the connection it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chassis.cache import open_redis, run_of
from chassis.pipe import Pipe, PipeUnavailable
from devstack.servers import Valkey

pytestmark = pytest.mark.servers


class Remembered(dict[bytes, Any]):
    """Without a bound."""

    def put(self, key: bytes, value: Any, size: int) -> None:
        assert size > len(key)
        self[key] = value

    def drop(self, key: bytes) -> None:
        self.pop(key, None)


class Rig:
    """A server, a pipe to it, and a client that writes. What is read is (bytes,), so that a missing key is remembered too."""

    def __init__(self, state: Path) -> None:
        self.server, self.memory, self.seen = Valkey(state), Remembered(), list[list[bytes | None]]()
        self.server.start()
        self.pipe: Pipe[Any] = Pipe(
            self.server.url, read=lambda value, mark: (value, mark), memory=self.memory, mark=b"whole", watched=[b"v"],
            seen=lambda versions, _: self.seen.append(versions),
        )  # fmt: skip
        self.redis = open_redis(self.server.url)

    async def get(self, key: bytes) -> bytes | None:
        """However long it takes to be connected."""
        for _ in range(200):
            with contextlib.suppress(PipeUnavailable):
                return (await self.pipe.get(key))[0]
            await asyncio.sleep(0.02)
        raise TimeoutError

    async def empty(self) -> None:
        """Wait until nothing is remembered."""
        async with asyncio.timeout(2.0):
            while self.memory:
                await asyncio.sleep(0.01)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made, stop = Rig(tmp_path), asyncio.Event()
    running = asyncio.ensure_future(made.pipe.run(stop))
    await made.get(b"nothing")
    yield made
    stop.set()
    await running
    await made.redis.aclose()
    made.server.stop()


async def test_a_read_says_what_stood_under_the_mark_and_nothing_is_remembered_past_it(rig: Rig) -> None:
    async def marked(key: bytes) -> tuple[bytes | None, bytes | None]:
        found: tuple[bytes | None, bytes | None] = await rig.pipe.get(key)
        return found

    assert await marked(b"a") == (None, None)
    run = await run_of(rig.redis)
    for other in ("yes", f"yes {'f' * 40}", run, "yes "):  # of no run, or of another one
        await rig.redis.set("whole", other)
        await rig.empty()
        assert await marked(b"a") == (None, None)
    await rig.redis.set("whole", f"yes {run}")
    await rig.empty()
    await rig.redis.set("a", 1)
    assert [await marked(key) for key in (b"a", b"b")] == [(b"1", b"yes"), (None, b"yes")]
    assert {b"a", b"b"} <= rig.memory.keys()
    await rig.redis.delete("whole")
    await rig.empty()
    assert await marked(b"a") == (b"1", None)


async def test_reads_of_a_tick_share_a_trip_and_those_of_a_key_an_answer(rig: Rig) -> None:
    await rig.redis.mset({"a": 1, "b": 2})
    before = int((await rig.redis.info("commandstats"))["cmdstat_mget"]["calls"])
    assert await asyncio.gather(*(rig.get(k) for k in (b"a", b"b", b"c", b"a"))) == [b"1", b"2", None, b"1"]
    assert int((await rig.redis.info("commandstats"))["cmdstat_mget"]["calls"]) - before <= 2


async def test_what_is_watched_is_seen_as_soon_as_it_changes(rig: Rig) -> None:
    await asyncio.sleep(0.3)
    for n in range(5):
        await rig.redis.set("v", n)
        async with asyncio.timeout(0.2):  # less than the pause between two looks
            while not rig.seen or rig.seen[-1] != [b"%d" % n]:
                await asyncio.sleep(0.002)


async def test_what_is_remembered_is_what_the_server_has_whatever_is_written_when(rig: Rig) -> None:
    chance, written, keys = random.Random(7), dict[bytes, bytes | None](), [b"k%d" % n for n in range(8)]
    hits = 0
    for n in range(2000):
        key = chance.choice(keys)
        match chance.randrange(4):
            case 0:
                written[key] = b"%d" % n
                asked = [asyncio.ensure_future(rig.get(k)) for k in chance.sample(keys, 2)]  # on its way meanwhile
                await rig.redis.set(key, n)
                await asyncio.gather(*asked)
            case 1:
                written[key] = None
                await rig.redis.delete(key)
            case _:
                await rig.get(key)
        await rig.get(b"fence")  # all that the server said before has come
        for k in keys:
            if (found := rig.memory.get(k)) is not None:
                hits += 1
                assert found[0] == written.get(k)
    assert hits > 1000


async def test_a_flush_and_a_cut_connection_leave_nothing_behind(rig: Rig) -> None:
    await rig.redis.set("a", 1)
    for end in (rig.redis.flushall, lambda: rig.redis.client_kill_filter(_type="normal", skipme=True)):
        await rig.get(b"a")
        assert rig.memory
        await end()
        await rig.empty()
        assert await rig.get(b"a") is None
        await rig.redis.set("a", 1)
        assert await rig.get(b"a") == b"1"
        await rig.redis.delete("a")


async def test_of_a_server_that_says_nothing_nothing_is_believed_and_nobody_waits_long_for_it(rig: Rig) -> None:
    await rig.get(b"a")
    process = rig.server.child.popen
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(PipeUnavailable):
            await rig.pipe.get(b"b")
        await rig.empty()
        began = asyncio.get_running_loop().time()
        for _ in range(20):  # it is away, and known to be
            with pytest.raises(PipeUnavailable):
                await rig.pipe.get(b"b")
        assert asyncio.get_running_loop().time() - began < 0.25
    finally:
        process.send_signal(signal.SIGCONT)
    assert await rig.get(b"a") is None


async def test_everybody_who_asks_is_told_once_whatever_another_one_does_with_it(rig: Rig) -> None:
    await rig.redis.set("a", 1)
    told: list[tuple[str, Any]] = []

    def broken(found: Any) -> None:
        told.append(("broken", found))
        raise ZeroDivisionError

    def again(found: Any) -> None:
        told.append(("again", found))
        if len(told) < 4:
            rig.pipe.ask(b"a", again)  # while the others are told

    gone = asyncio.ensure_future(rig.pipe.get(b"a"))
    await asyncio.sleep(0)
    gone.cancel()
    rig.pipe.ask(b"a", broken)
    rig.pipe.ask(b"a", again)
    assert await rig.get(b"a") == b"1"
    while len(told) < 4:
        await asyncio.sleep(0.01)
    assert [(name, found and found[0]) for name, found in told] == [("broken", b"1"), *[("again", b"1")] * 3]


@pytest.mark.parametrize("how", ["slow", "dead"])
async def test_who_cannot_be_told_what_stands_there_is_told_so_once(rig: Rig, how: str) -> None:
    process = rig.server.child.popen
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    told: list[Any] = []
    rig.pipe.ask(b"a", told.append)
    if how == "dead":
        await asyncio.sleep(0.05)  # it was asked
        rig.server.kill()
    else:
        await asyncio.sleep(0.3)
        assert told == [None]
        process.send_signal(signal.SIGCONT)  # its answer comes too late
        await rig.get(b"b")
    await asyncio.sleep(0.3)
    assert told == [None]


async def test_it_comes_back_after_the_server_died(rig: Rig) -> None:
    await rig.get(b"a")
    rig.server.kill()
    with pytest.raises(PipeUnavailable):
        await rig.pipe.get(b"a")
    assert not rig.memory
    rig.server.start()
    redis = open_redis(rig.server.url)
    await redis.set("a", 5)
    assert await rig.get(b"a") == b"5"
    await redis.aclose()


async def test_a_server_that_was_started_again_is_not_what_was_marked(rig: Rig) -> None:
    await rig.redis.mset({"whole": f"yes {await run_of(rig.redis)}", "a": 1})
    await rig.get(b"a")
    assert (await rig.pipe.get(b"a"))[1] == b"yes"
    await rig.redis.save()
    rig.server.kill()
    rig.server.start()
    assert await rig.get(b"a") == b"1", "it has its dump"
    assert (await rig.pipe.get(b"a"))[1] is None


async def test_where_nobody_writes_no_mark_counts(rig: Rig) -> None:
    run = await run_of(rig.redis)
    await rig.redis.mset({"whole": f"yes {run}", "a": 1})
    for theirs, mark in ((None, b"yes"), (run, b"yes"), ("another", None), (None, None), (run, b"yes")):
        rig.pipe.belong(theirs)
        assert await rig.pipe.get(b"a") == (b"1", mark)


async def test_whatever_is_made_of_what_is_watched_it_goes_on(rig: Rig) -> None:
    seen, fails = rig.seen, 3

    def fail(versions: list[bytes | None], _: float) -> None:
        nonlocal fails
        seen.append(versions)
        if fails:
            fails -= 1
            raise ValueError("12.5")

    rig.pipe._seen = fail
    await rig.redis.set("v", "12.5")
    async with asyncio.timeout(30):
        while fails or seen[-1] != [b"12.5"]:
            await asyncio.sleep(0.01)
    assert await rig.get(b"a") is None


@pytest.mark.parametrize("said", [b":1\r\n", b"$1\r\nx\r\n", b"*1\r\n$1\r\nx\r\n", b"?\r\n", b">0\r\n"])
async def test_whatever_the_server_says_it_goes_on_and_who_waits_is_told(said: bytes) -> None:
    connected, sent = asyncio.Event(), list[bytes]()

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                sent.append(line)
                if line.startswith(b"*"):
                    writer.write(said if connected.is_set() else b"+OK\r\n")
        writer.close()

    server, stop = await asyncio.start_server(odd, "127.0.0.1", 0), asyncio.Event()
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    pipe: Pipe[Any] = Pipe(url, read=lambda *found: found, memory=Remembered(), mark=b"m")
    running = asyncio.ensure_future(pipe.run(stop))
    try:
        async with asyncio.timeout(30):
            while not pipe._open:
                await asyncio.sleep(0.01)
            connected.set()
            with pytest.raises(PipeUnavailable):
                await pipe.get(b"a")
            connected.clear()
            sent.clear()
            while not pipe._open or b"PING\r\n" not in sent:
                await asyncio.sleep(0.01)
    finally:
        stop.set()
        await running
        server.close()


async def test_where_tracking_is_forbidden_nothing_is_remembered_and_everything_is_asked(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.redis.acl_setuser(
        "default", enabled=True, nopass=True, commands=["+@all", "-client|tracking"], keys=["*"]
    )
    stop = asyncio.Event()
    running = asyncio.ensure_future(rig.pipe.run(stop))
    try:
        for n in range(3):
            await rig.redis.set("a", n)
            assert await rig.get(b"a") == b"%d" % n
        assert not rig.memory
    finally:
        stop.set()
        await running
        await rig.redis.aclose()
        rig.server.stop()


async def test_what_cannot_be_read_is_its_own_trouble_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    def read(value: bytes | None, _: bytes | None) -> Any:
        if value == b"bad":
            raise ValueError
        return (value,)

    rig.pipe._read = read
    stop = asyncio.Event()
    running = asyncio.ensure_future(rig.pipe.run(stop))
    try:
        await rig.redis.mset({"a": "good", "b": "bad"})
        assert await rig.get(b"c") is None
        good, bad = await asyncio.gather(rig.pipe.get(b"a"), rig.pipe.get(b"b"), return_exceptions=True)
        assert good == (b"good",)
        assert isinstance(bad, PipeUnavailable)
        assert await rig.get(b"a") == b"good"
        assert b"c" in rig.memory, "the connection is as it was"
    finally:
        stop.set()
        await running
        await rig.redis.aclose()
        rig.server.stop()
