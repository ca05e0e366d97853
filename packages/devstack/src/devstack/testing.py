"""Pytest plugin: real servers as fixtures, started when first asked for and stopped at the end.

With CI=true a server that cannot be had is a failure; elsewhere the tests that need it are skipped with the reason.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from devstack import front as front_server
from devstack import kafka as kafka_server
from devstack import varnish as varnish_server
from devstack.front import Front
from devstack.kafka import Kafka
from devstack.servers import Postgres, Valkey
from devstack.stack import Stack
from devstack.varnish import Varnish

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("footfall", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("footfall")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first: at the end of a run of several at a time nobody waits for one."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def need(missing: str | None) -> None:
    """Skip what needs a server that is missing; with CI=true, fail."""
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{missing}, and CI=true")
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def state() -> Iterator[Path]:
    """A folder for the servers of this run."""
    with tempfile.TemporaryDirectory(prefix="footfall-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _running(server: Any) -> Iterator[Any]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres(state: Path) -> Iterator[Postgres]:
    """One PostgreSQL for the run."""
    yield from _running(Postgres(state))


@pytest.fixture(scope="session")
def valkey(state: Path) -> Iterator[Valkey]:
    """One Valkey for the run."""
    yield from _running(Valkey(state))


@pytest.fixture(scope="session")
def kafka(state: Path) -> Iterator[Kafka]:
    """One Kafka for the run."""
    need(kafka_server.available())
    yield from _running(Kafka(state))


@pytest.fixture
async def database(postgres: Postgres) -> str:
    """The URL of a database nobody else uses."""
    import asyncpg

    name = f"t{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return postgres.url.removesuffix("postgres") + name


@pytest.fixture
async def redis_url(valkey: Valkey) -> str:
    """The URL of an empty Valkey."""
    from chassis.cache import open_redis

    client = open_redis(valkey.url)
    await client.flushall()
    await client.aclose()
    return valkey.url


@pytest.fixture
def varnish(state: Path) -> Iterator[Callable[[Stack], Varnish]]:
    """Start an edge in front of a gateway; stopped after the test."""
    need(varnish_server.available())
    started: list[Varnish] = []

    def start(stack: Stack) -> Varnish:
        server = Varnish(state / uuid.uuid4().hex[:8], stack.secrets.edge_keys())
        started.append(server)
        server.start()
        server.use(stack.address)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def front(state: Path) -> Iterator[Callable[[str, str], Front]]:
    """Start nginx before the edge at host:port, with the key of the front; stopped after the module."""
    need(front_server.available())
    started: list[Front] = []

    def start(edge: str, key: str) -> Front:
        server = Front(state / uuid.uuid4().hex[:8], edge, key)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def services(postgres: Postgres, kafka: Kafka, state: Path) -> Callable[..., AbstractContextManager[Stack]]:
    """All four services, over a database and a Valkey of their own, for as long as the context of the call lasts.

    Takes a name, and what Stack takes (`edges`, `extra`).
    """
    import asyncio

    import asyncpg
    from chassis.bus import ensure_topics
    from contracts import topics

    async def prepare(name: str) -> None:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        await ensure_topics(kafka.bootstrap, topics.SHAPES)

    @contextmanager
    def start(name: str, **more: Any) -> Iterator[Stack]:
        asyncio.run(prepare(name))
        database = postgres.url.removesuffix("postgres") + name
        extra = dict(more.pop("extra", {}))
        extra["segment_svc"] = {
            "GROUP": name,
            **extra.get("segment_svc", {}),
        }  # they share a broker, not its partitions
        for server in _running(Valkey(state / name)):
            yield from _running(Stack(state / name, database, server.url, kafka.bootstrap, extra=extra, **more))

    return start


def until(check: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for what happens by itself."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
