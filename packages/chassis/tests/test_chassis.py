"""The life of a process on real servers: outbox, versions in the projection, the hot path's connection, settings, limits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from chassis import service
from chassis.auth import ROLES, SERVER, Actor, Refused, ServiceTokens
from chassis.db import Database, Tx
from chassis.health import STUCK_S, Health
from chassis.http import Limits, service_app
from chassis.pace import pause_s
from chassis.service import Loop, Service, repeat, serve
from chassis.settings import SettingsError, load
from devstack.process import free_port
from devstack.servers import Postgres

servers = pytest.mark.servers


@dataclass(frozen=True)
class Sample:
    url: str
    port: int = 1
    names: tuple[str, ...] = ()
    loud: bool = False


class TestPace:
    def test_a_wait_doubles_up_to_its_bound_however_long_the_trouble_lasts(self) -> None:
        waits = [pause_s(n, base_s=0.1, most_s=5.0) for n in (1, 2, 3, 50, 1024, 10**6)]
        assert 0.1 <= waits[0] <= 0.2
        assert all(0 < wait <= 5.0 for wait in waits)
        assert all(wait >= 2.5 for wait in waits[3:])


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

        await repeat(work, stop, name="test", idle_s=0.01, health=Health())
        assert seen == [0, 1, 2, 3]


class TestHealth:
    async def test_a_part_is_in_trouble_until_it_is_fine_and_a_loop_that_stands_still_is_stuck(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        health, now = Health(), [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        health.trouble("a", "broken")
        health.beat("b")
        assert health.troubles() == {"a": "broken"}
        health.fine("a")
        now[0] = STUCK_S + 1
        assert list(health.troubles()) == ["loop b"]
        health.beat("b")
        assert health.troubles() == {}

    async def test_readiness_names_the_cause_and_who_routes_requests_may_ask_less(self) -> None:
        async def gone() -> None:
            raise ConnectionError

        health = Health()
        app = service_app("t", pings={"database": gone}, health=health)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.json()) == (503, {"database": "does not answer: ConnectionError"})
            assert (await client.get("/readyz?exclude=database")).status_code == 200
            health.trouble("outbox facts", "stuck")
            answer = await client.get("/readyz?exclude=database")
            assert (answer.status_code, answer.json()["outbox facts"]) == (503, "stuck")
            assert (await client.get("/readyz?exclude=outbox&exclude=database")).status_code == 200
        app = service_app("t", pings={"database": gone}, health=health, public=True)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
            assert (await client.get("/readyz")).json() == {"database": "trouble", "outbox facts": "trouble"}

    async def test_all_that_is_needed_is_asked_at_once(self) -> None:
        both = asyncio.Barrier(2)
        app = service_app("t", pings={"database": both.wait, "cache": both.wait}, health=Health())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
            assert (await client.get("/readyz")).status_code == 200

    async def test_a_loop_that_does_not_end_is_left_and_the_others_drain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ended: list[str] = []

        async def deaf(_: asyncio.Event) -> None:
            await asyncio.Event().wait()

        async def hears(stop: asyncio.Event) -> None:
            await stop.wait()
            ended.append("hears")

        monkeypatch.setattr(service, "DRAIN_S", 0.05)
        stopping = asyncio.Event()
        made = Service(
            "t",
            service_app("t", pings={}, health=Health()),
            "127.0.0.1",
            free_port(),
            [Loop("a", hears), Loop("b", deaf)],
        )
        asyncio.get_running_loop().call_later(0.2, stopping.set)
        async with asyncio.timeout(20):
            await serve(made, stopping)
        assert ended == ["hears"]


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
        assert ServiceTokens("a" * 32, "two").verify(token, "two") == ("one", None)
        for secret, audience in (("b" * 32, "two"), ("a" * 32, "three")):
            with pytest.raises(Refused):
                ServiceTokens(secret, "x").verify(token, audience)

    @pytest.mark.parametrize(("ahead_s", "counts"), [(4, True), (-4, True), (3600, False), (-3600, False)])
    def test_clocks_of_machines_may_differ_by_a_little(
        self, monkeypatch: pytest.MonkeyPatch, ahead_s: int, counts: bool
    ) -> None:
        with monkeypatch.context() as theirs:
            now_s = time.time() + ahead_s
            theirs.setattr(time, "time", lambda: now_s)
            token = ServiceTokens("a" * 32, "one").issue("two")
        with contextlib.nullcontext() if counts else pytest.raises(Refused):
            assert ServiceTokens("a" * 32, "two").verify(token, "two") == ("one", None)

    def test_a_token_says_for_whom_it_is_asked_and_one_of_another_does_not(self) -> None:
        one, two = ServiceTokens("a" * 32, "one"), ServiceTokens("a" * 32, "two")
        for actor in (Actor("ann", "viewer"), None, Actor("bob", "admin"), Actor("ann", "viewer")):
            assert two.verify(one.issue("two", actor), "two") == ("one", actor)

    @pytest.mark.parametrize(
        ("role", "enough"),
        [
            ("viewer", {"viewer"}), ("marketer", {"viewer", "editor", "marketer"}), ("admin", set(ROLES)), (SERVER, {SERVER}),
            ("", set()), ("root", set()),
        ],
    )  # fmt: skip
    def test_a_role_is_enough_for_what_is_below_it_and_a_server_for_nothing_of_a_merchant(
        self, role: str, enough: set[str]
    ) -> None:
        assert {needed for needed in (*ROLES, SERVER) if Actor("a", role).may(needed)} == enough


@servers
class TestDatabase:
    @pytest.mark.parametrize("at", ["BEGIN", "body", "COMMIT", "ROLLBACK"])
    async def test_a_connection_given_up_in_the_middle_never_hands_its_transaction_to_the_next(
        self, database: str, at: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        db = await Database.open(database, schema="public", pool_size=1)
        async with db.tx() as tx:
            await tx.execute("CREATE TABLE t (n int)")
        execute = asyncpg.Connection.execute

        async def slow(self: Any, query: str, *args: Any, **more: Any) -> Any:
            done = await execute(self, query, *args, **more)
            if query.startswith(at):
                await asyncio.sleep(60)
            return done

        with monkeypatch.context() as patch:
            patch.setattr(asyncpg.Connection, "execute", slow)
            with contextlib.suppress(TimeoutError, ZeroDivisionError):
                async with asyncio.timeout(0.5), db.tx() as tx:
                    await tx.execute("INSERT INTO t VALUES (1)")
                    if at == "body":
                        await tx.fetch("SELECT pg_sleep(60)")
                    if at == "ROLLBACK":
                        raise ZeroDivisionError
        for _ in range(3):
            async with db.tx() as tx:
                await tx.execute("INSERT INTO t VALUES (2)")
        other = await asyncpg.connect(database)
        assert await other.fetchval("SELECT count(*) FROM t WHERE n = 2") == 3
        assert await other.fetchval("SELECT count(*) FROM t WHERE n = 1") == (1 if at == "COMMIT" else 0)
        ours = "datname = current_database() AND state LIKE 'idle in transaction%'"  # others use the server, too
        open_ones = f"SELECT count(*) FROM pg_stat_activity WHERE {ours}"
        assert await other.fetchval(open_ones) == 0
        await other.close()
        await db.close()

    async def test_who_gives_a_transaction_up_waits_for_nothing_that_was_sent_in_it(self, database: str) -> None:
        db = await Database.open(database, schema="public", pool_size=1)

        async def given_up() -> None:
            async with db.tx() as tx:
                await tx.behind(long(tx))
                raise ZeroDivisionError

        async def long(tx: Tx) -> None:
            await tx.execute("SELECT pg_sleep(30)")

        async with asyncio.timeout(20):
            with contextlib.suppress(ZeroDivisionError):
                await given_up()
            async with db.tx() as tx:
                assert await tx.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)'") == 0
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


class TestLimits:
    @pytest.fixture
    def client(self) -> httpx.AsyncClient:
        app = service_app("t", pings={}, health=Health())

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
