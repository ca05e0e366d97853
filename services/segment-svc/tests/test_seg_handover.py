"""What Redis was handed the database has, and nobody is known by a Redis that does not take, or may drop, documents."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.cache import VersionedWriter
from chassis.outbox import Relay
from redis.exceptions import RedisError
from segment_svc import handover
from segment_svc.flows import project
from segment_svc.wire import AUDIENCE

sys.path.insert(0, str(Path(__file__).parent))
from test_seg_walk import START, VIEWS, read, save, send, view

pytestmark = pytest.mark.servers
Configure = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
async def configure(service: Any) -> AsyncIterator[Configure]:
    """Give the server other bounds of its memory, until the test ends."""
    before = {name: (await service.redis.config_get(name))[name] for name in ("maxmemory", "maxmemory-policy")}

    async def change(**to: Any) -> None:
        for name, value in ({name.replace("_", "-"): v for name, v in to.items()} or before).items():
            await service.redis.config_set(name, value)

    yield change
    await change()


async def known(client: httpx.AsyncClient, service: Any) -> int:
    """Somebody is known to readers, and all documents are there; answers their era."""
    await save(client, service, "runners", VIEWS)
    await send(client, view(1, START))
    await read(service, "v:ann")
    await project.go_on(service.deps, service.redis)
    await project.project(service.deps, service.redis)
    era, run = (await service.redis.get(project.MARK)).split(b" ")
    assert run
    return int(era)


async def is_known(service: Any) -> bool:
    """Whether readers take documents for all there are."""
    return b" " in (await service.redis.get(project.MARK) or b"")


class TestHistory:
    async def test_a_relay_that_dies_while_it_hands_on_is_no_database_that_went_back(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await known(client, service)
        await send(client, view(2, START + 1))

        async def dies(*_: Any) -> None:
            raise SystemError

        with monkeypatch.context() as patch:
            patch.setattr(VersionedWriter, "put_many", dies)
            with pytest.raises(SystemError):
                await service.deps.relay.step(AUDIENCE)
        await project.go_on(service.deps, service.redis)
        assert await is_known(service)
        assert await service.deps.relay.step(AUDIENCE) == 1

    async def test_relays_side_by_side_leave_a_token_that_the_database_has(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await known(client, service)
        put = VersionedWriter.put_many

        async def slow(*args: Any) -> set[str]:
            await asyncio.sleep(0.01)
            return await put(*args)

        monkeypatch.setattr(VersionedWriter, "put_many", slow)
        monkeypatch.setattr("chassis.outbox.MOST", 1)
        relays = [Relay(service.deps.db, {AUDIENCE: handover.Handover(service.deps.db, service.redis)},
                        service.deps.health) for _ in range(4)]  # fmt: skip
        for n in range(20):
            await send(client, view(10 + n, START, f"visitor:{n}"))
        assert sum(await asyncio.gather(*(relay.drain() for relay in relays))) == 20
        await project.go_on(service.deps, service.redis)
        assert await is_known(service)

    async def test_what_was_lost_is_noticed_whatever_was_handed_on_before_by_another_relay(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        era = await known(client, service)
        async with service.deps.db.tx() as tx:
            had = {r["token"] for r in await tx.fetch("SELECT token FROM handed")}
        await send(client, view(2, START + 1))
        await read(service, "v:ann")
        async with service.deps.db.tx() as tx:  # as the standby is, which never had that lot
            await tx.execute("DELETE FROM handed WHERE NOT token = ANY($1::bytea[])", list(had))
        other = handover.Handover(service.deps.db, service.redis)
        with pytest.raises(handover.WentBack):
            await other([])
        await asyncio.gather(*(project.go_on(service.deps, service.redis) for _ in range(3)))
        await other([])
        await project.project(service.deps, service.redis)
        assert await service.redis.get(project.MARK) != b"%d" % era
        assert int((await service.redis.get(project.MARK)).split(b" ")[0]) == era + 1, "once, whoever notices"

    async def test_a_relay_whose_token_was_replaced_long_ago_goes_on(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await known(client, service)
        one, other = (handover.Handover(service.deps.db, service.redis) for _ in range(2))
        await one([])
        await other([])
        async with service.deps.db.tx() as tx:  # as FORGET does in time
            await tx.execute("DELETE FROM handed WHERE token <> $1", await service.redis.get(handover.HANDED))
        await one([])
        await project.go_on(service.deps, service.redis)
        assert await is_known(service)

    async def test_what_another_relay_hands_on_meanwhile_must_not_be_lost_either(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await known(client, service)
        db, redis = service.deps.db, service.redis

        class Meanwhile:
            """The server, to a relay that another one overtakes just before it puts its token there."""

            overtaken = False

            def __getattr__(self, name: str) -> Any:
                return getattr(redis, name)

            async def eval(self, *args: Any) -> Any:
                if not self.overtaken:
                    self.overtaken = True
                    await handover.Handover(db, redis)([])
                    async with db.tx() as tx:
                        await tx.execute("DELETE FROM handed WHERE token = $1", await handover.token_of(redis))
                return await redis.eval(*args)

        with pytest.raises(handover.WentBack):
            await handover.Handover(db, Meanwhile())([])

    async def test_tokens_that_were_replaced_long_ago_go_and_the_one_in_redis_stays(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await known(client, service)
        await send(client, view(2, START + 1))
        await read(service, "v:ann")
        async with service.deps.db.tx() as tx:
            await tx.execute("UPDATE handed SET at = at - interval '1 day'")
            assert await tx.fetchval("SELECT count(*) FROM handed") > 1
        await project.go_on(service.deps, service.redis)
        async with service.deps.db.tx() as tx:
            tokens = [r["token"] for r in await tx.fetch("SELECT token FROM handed")]
        assert tokens == [await handover.token_of(service.redis)]
        assert await is_known(service)


class TestRoom:
    async def test_nobody_is_known_while_redis_is_too_full_to_take_documents(
        self, client: httpx.AsyncClient, service: Any, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await known(client, service)
        await configure(maxmemory=1)
        await send(client, view(2, START + 1))
        with pytest.raises(RedisError):
            await service.deps.relay.step(AUDIENCE)
        assert await is_known(service), "it may pass"
        monkeypatch.setattr(handover, "PATIENCE_S", 0.0)
        with pytest.raises(RedisError):
            await service.deps.relay.step(AUDIENCE)
        assert not await is_known(service)
        with pytest.raises(RedisError):
            await project.project(service.deps, service.redis)
        await configure()
        await service.deps.relay.drain()
        assert await project.project(service.deps, service.redis) == 1
        assert await is_known(service)

    async def test_nobody_is_known_by_a_redis_that_may_drop_documents_for_room(
        self, client: httpx.AsyncClient, service: Any, configure: Configure
    ) -> None:
        era = await known(client, service)
        await configure(maxmemory_policy="allkeys-lru")
        for _ in range(2):
            assert await project.project(service.deps, service.redis) == 0
            assert not await is_known(service)
            assert "noeviction" in service.deps.health.troubles()[project.POLICY]
        await configure(maxmemory=0)
        assert await project.project(service.deps, service.redis) == 1, "without a bound nothing is dropped"
        assert (await service.redis.get(project.MARK)).startswith(b"%d " % era)
        assert service.deps.health.troubles() == {}

    async def test_who_writes_all_anew_begins_again_when_one_of_them_could_not_be_written(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await known(client, service)
        await service.redis.delete(project.MARK)
        put = VersionedWriter.put_many

        async def refused(*args: Any) -> set[str]:
            runs = await put(*args)
            await handover.doubt(service.redis, "full")
            return runs

        with monkeypatch.context() as patch:
            patch.setattr(VersionedWriter, "put_many", refused)
            await project.project(service.deps, service.redis)
        assert not await is_known(service)
        assert await project.project(service.deps, service.redis) == 1
        assert await is_known(service)
