"""The life of a process on real servers: outbox, versions in the projection, the hot path's connection, settings, limits."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis import outbox
from chassis.auth import Refused, ServiceTokens
from chassis.cache import VersionedWriter, open_redis
from chassis.db import Database
from chassis.http import Limits, service_app
from chassis.outbox import OUTBOX_DDL, Relay
from chassis.pipe import Pipe, PipeUnavailable
from chassis.service import repeat
from chassis.settings import SettingsError, load
from devstack.servers import Postgres, Valkey

servers = pytest.mark.servers


@dataclass(frozen=True)
class Sample:
    url: str
    port: int = 1
    names: tuple[str, ...] = ()
    loud: bool = False


class TestLoops:
    async def test_a_loop_that_fails_is_tried_again_until_it_is_told_to_stop(self) -> None:
        stop, seen = asyncio.Event(), []

        async def work() -> bool:
            seen.append(len(seen))
            if len(seen) == 2:
                raise OSError("away")
            if len(seen) == 4:
                stop.set()
            return len(seen) == 1

        await repeat(work, stop, name="test", idle_s=0.01)
        assert seen == [0, 1, 2, 3]


class TestSettings:
    def test_values_are_typed_and_secrets_come_from_files(self, tmp_path: Path) -> None:
        (tmp_path / "url").write_text("secret\n")
        env = {"X_URL_FILE": str(tmp_path / "url"), "X_PORT": "7", "X_NAMES": "a, b", "X_LOUD": "yes", "OTHER": "1"}
        assert load(Sample, "X_", env) == Sample("secret", 7, ("a", "b"), loud=True)

    @pytest.mark.parametrize(
        ("env", "message"),
        [
            ({"X_PORT": "7"}, "X_URL is not set"),
            ({"X_URL": "u", "X_PROT": "7"}, "did you mean X_PORT"),
            ({"X_URL": "u", "X_PORT": "seven"}, "X_PORT must be a number"),
            ({"X_URL_FILE": "/nowhere"}, "cannot be read"),
        ],
    )
    def test_what_is_wrong_is_named(self, env: dict[str, str], message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            load(Sample, "X_", env)


class TestTokens:
    def test_a_token_is_for_one_audience_and_from_one_secret(self) -> None:
        token = ServiceTokens("a" * 32, "one").issue("two")
        assert ServiceTokens("a" * 32, "two").verify(token, "two") == "one"
        for secret, audience in (("b" * 32, "two"), ("a" * 32, "three")):
            with pytest.raises(Refused):
                ServiceTokens(secret, "x").verify(token, audience)


@servers
class TestOutbox:
    async def test_rows_of_a_rolled_back_transaction_never_leave_and_a_failed_handler_gets_them_again(
        self, database: str
    ) -> None:
        db = await Database.open(database, schema="public")
        got: list[bytes] = []
        fail = [True]

        async def handler(payloads: Any) -> None:
            if fail.pop() if fail else False:
                raise OSError
            got.extend(payloads)

        async with db.tx() as tx:
            await tx.execute(OUTBOX_DDL)
        with contextlib.suppress(RuntimeError):
            async with db.tx() as tx:
                await outbox.add(tx, "c", b"lost")
                raise RuntimeError
        async with db.tx() as tx:
            await outbox.add(tx, "c", b"kept")
        relay = Relay(db, {"c": handler})
        with pytest.raises(OSError):  # noqa: PT011
            await relay.step()
        assert await relay.step() == 1
        assert await relay.step() == 0
        assert got == [b"kept"]
        await db.close()

    async def test_a_pool_survives_a_restart_of_the_server(self, state: Path) -> None:
        server = Postgres(state / "restarted")
        server.start()
        db = await Database.open(server.url, schema="public", pool_size=1)
        async with db.tx() as tx:
            assert await tx.fetchval("SELECT 1") == 1
        server.kill()
        server.start()
        await asyncio.sleep(0.1)
        async with db.tx() as tx:
            assert await tx.fetchval("SELECT 2") == 2
        await db.close()
        server.stop()


@servers
class TestProjection:
    async def test_an_old_version_never_wins(self, redis_url: str) -> None:
        redis = open_redis(redis_url)
        writer = VersionedWriter(redis)
        await writer.put_many([("k", 300, b"new"), ("k", 2, b"old"), ("k", 299, b"older")])
        assert (await redis.get("k"))[8:] == b"new"
        await writer.put_many([("k", 300, b"same"), ("k", 70_000, b"newest")])
        assert (await redis.get("k"))[8:] == b"newest"
        await redis.aclose()


@servers
class TestPipe:
    async def test_reads_of_a_tick_share_a_trip_and_it_comes_back_after_the_server_died(self, tmp_path: Path) -> None:
        server = Valkey(tmp_path)
        server.start()
        seen: list[list[bytes | None]] = []
        pipe, stop = Pipe(server.url, watched=[b"v"], seen=seen.append), asyncio.Event()
        running = asyncio.ensure_future(pipe.run(stop))
        redis = open_redis(server.url)
        await redis.mset({"a": 1, "b": 2, "v": 9})

        async def get(key: bytes) -> bytes | None:
            for _ in range(200):
                with contextlib.suppress(PipeUnavailable):
                    return await pipe.get(key)
                await asyncio.sleep(0.02)
            raise TimeoutError

        assert await get(b"a") == b"1"
        before = int((await redis.info("commandstats"))["cmdstat_mget"]["calls"])
        assert await asyncio.gather(*(pipe.get(k) for k in (b"a", b"b", b"c"))) == [b"1", b"2", None]
        assert int((await redis.info("commandstats"))["cmdstat_mget"]["calls"]) - before <= 2
        await asyncio.sleep(0.6)
        assert seen[-1] == [b"9"]
        server.kill()
        with pytest.raises(PipeUnavailable):
            await pipe.get(b"a")
        server.start()
        await redis.aclose()
        redis = open_redis(server.url)
        await redis.set("a", 5)
        assert await get(b"a") == b"5"
        stop.set()
        await running
        await redis.aclose()
        server.stop()


class TestLimits:
    @pytest.fixture
    def client(self) -> httpx.AsyncClient:
        app = service_app("t", pings={})

        @app.post("/echo")
        async def echo(body: dict[str, int]) -> dict[str, int]:
            if "boom" in body:
                raise RuntimeError("a secret of ours")
            return body

        guarded = Limits(app, service="t", max_body=1000, max_headers=20, body_timeout_s=0.2)
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(guarded, raise_app_exceptions=False), base_url="http://t"
        )

    async def test_large_slow_and_many(self, client: httpx.AsyncClient) -> None:
        async def endless() -> Any:
            for _ in range(100):
                yield b"x" * 100

        async def slow() -> Any:
            yield b"{"
            await asyncio.sleep(5)

        async with client:
            assert (await client.post("/echo", content=b"x" * 2000)).status_code == 413
            assert (await client.post("/echo", content=endless())).status_code == 413
            assert (await client.post("/echo", content=slow())).status_code == 408
            assert (await client.post("/echo", json={}, headers={f"h{i}": "1" for i in range(50)})).status_code == 431
            assert (await client.post("/echo", json={"a": 1})).json() == {"a": 1}

    async def test_errors_are_problems_and_tell_nothing_of_us(self, client: httpx.AsyncClient) -> None:
        async with client:
            bad = await client.post("/echo", json={"a": "x"})
            assert bad.headers["content-type"] == "application/problem+json"
            assert bad.json()["errors"][0]["pointer"] == "/a"
            broken = await client.post("/echo", json={"boom": 1})
            assert broken.json() == {
                "type": "urn:footfall:problem:internal",
                "title": "Something went wrong on our side",
                "status": 500,
            }
            assert (await client.get("/nowhere")).json()["type"] == "urn:footfall:problem:not-found"
