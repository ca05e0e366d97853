"""What stands in Redis is what the database says: written again when it was lost, old, or of a database that went back."""

from __future__ import annotations

import asyncio
import random
import struct
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.cache import VersionedWriter
from segment_svc import definitions, handover
from segment_svc.flows import project
from segment_svc.wire import AUDIENCE

sys.path.insert(0, str(Path(__file__).parent))
from test_seg_walk import START, VIEWS, read, save, send, view

pytestmark = pytest.mark.servers
LONG = random.Random(1).randbytes(9000).hex()  # no index of a database takes it


async def known(client: httpx.AsyncClient, service: Any) -> None:
    """There is somebody of whom Redis has a document."""
    await save(client, service, "runners", VIEWS)
    await send(client, view(1, START))
    await read(service, "v:ann")


class TestProjection:
    async def test_documents_that_redis_lost_are_written_again_under_every_name(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await save(client, service, "runners", VIEWS)
        login = {**view(9, START, "customer:c1"), "type": "login", "data": {"visitorId": "ann", "customerId": "c1"}}
        await send(client, *(view(i, START - i * 1000) for i in range(4)), login, view(8, START, "visitor:bob"))
        before = {name: await read(service, name) for name in ("v:ann", "c:c1", "v:bob")}
        assert await project.project(service.deps, service.redis) == 2
        await service.redis.flushdb()
        assert await project.project(service.deps, service.redis) == 2
        assert {name: await read(service, name) for name in before} == before
        assert await project.project(service.deps, service.redis) == 0

    async def test_a_rewriter_that_died_is_replaced_and_a_newer_document_stays(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await known(client, service)
        newer = b"\xff" * 8 + b"newer"
        await service.redis.set("aud:v:ann", newer)
        await service.redis.set(project.MARK, f"{project.CLAIM}theirs", px=50)
        assert await project.project(service.deps, service.redis) == 0
        while await service.redis.exists(project.MARK):
            await asyncio.sleep(0.01)
        assert await project.project(service.deps, service.redis) == 1
        assert await service.redis.get("aud:v:ann") == newer

    @pytest.mark.parametrize("at", ["a page", "the end"])
    async def test_a_rewriter_that_stood_still_gives_up_when_redis_was_emptied_meanwhile(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch, at: str
    ) -> None:
        await known(client, service)
        await send(client, view(2, START, "visitor:bob"))
        await read(service, "v:bob")
        monkeypatch.setattr(project, "PAGE", 1)
        put, stood, go_on = VersionedWriter.put_many, asyncio.Event(), asyncio.Event()

        async def put_many(writer: VersionedWriter, entries: Any) -> set[str]:
            runs = await put(writer, entries)
            if at == "a page":
                await stand()
            return runs

        async def names_of(tx: Any, keys: Any) -> Any:
            if at == "the end" and not keys:
                await stand()
            return await names(tx, keys)

        async def stand() -> None:
            if await service.redis.exists("aud:v:bob") and not stood.is_set():
                stood.set()
                await go_on.wait()

        names = project.identities.names_of
        monkeypatch.setattr(project.identities, "names_of", names_of)
        monkeypatch.setattr(VersionedWriter, "put_many", put_many)
        await service.redis.flushdb()
        slow = asyncio.ensure_future(project.project(service.deps, service.redis))
        await stood.wait()
        await service.redis.flushdb()
        claim = project.CLAIM + "of another worker"
        await service.redis.set(project.MARK, claim, ex=30)
        go_on.set()
        await slow
        assert await service.redis.get(project.MARK) == claim.encode(), "as it was"
        assert 0 < await service.redis.ttl(project.MARK) <= 30
        await service.redis.delete(project.MARK)
        assert await project.project(service.deps, service.redis) == 2
        assert await service.redis.exists("aud:v:ann", "aud:v:bob") == 2

    async def test_a_redis_that_is_emptied_behind_the_last_page_is_not_said_to_be_whole(
        self, client: httpx.AsyncClient, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await known(client, service)
        await service.redis.delete(project.MARK)
        at_home, looks = project._at_home, list[int | None]()

        async def emptied(*args: Any) -> Any:
            if len(looks) == 2:  # at the beginning, and after the page
                await service.redis.flushdb()
            looks.append(await at_home(*args))
            return looks[-1]

        with monkeypatch.context() as patch:
            patch.setattr(project, "_at_home", emptied)
            await project.project(service.deps, service.redis)
        assert looks == [0, 0, 0]
        assert not await service.redis.exists(project.MARK)
        assert await project.project(service.deps, service.redis) == 1
        await service.redis.set(project.MARK, project.CLAIM + "without an end")
        assert await project.project(service.deps, service.redis) == 1, "it is nobody's"

    async def test_a_server_that_was_started_again_has_all_written_anew_whatever_its_dump_says(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await known(client, service)
        assert await project.project(service.deps, service.redis) == 1
        mark = await service.redis.get(project.MARK)
        await service.redis.set(project.MARK, mark.split(b" ")[0] + b" " + b"f" * 40)  # of the run before
        assert await project.project(service.deps, service.redis) == 1
        assert await service.redis.get(project.MARK) == mark

    async def test_what_a_database_wrote_that_went_back_since_is_of_an_era_before(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await known(client, service)
        await project.project(service.deps, service.redis)
        (era,) = struct.unpack(">H", (await service.redis.get("aud:v:ann"))[:2])
        await project.go_on(service.deps, service.redis)
        assert (await service.redis.get(project.MARK)).split(b" ")[0] == b"%d" % era, "it did not go back"
        await service.redis.set("aud:v:ann", struct.pack(">Q", 1000) + b"lost")  # of a person who was further, then
        await service.redis.set("ver:segment", 50)
        await project.go_on(service.deps, service.redis)
        assert await project.project(service.deps, service.redis) == 1
        assert (await service.redis.get(project.MARK)).split(b" ")[0] == b"%d" % (era + 1)
        stored = await service.redis.get("aud:v:ann")
        assert struct.unpack(">H", stored[:2]) == (era + 1,)
        await send(client, view(2, START + 1))
        await service.deps.relay.drain()
        later = await service.redis.get("aud:v:ann")
        assert later[:8] >= stored[:8]
        assert (await client.get("/v1/definitions")).json()["version"] > 50

    async def test_a_version_that_nobody_can_have_come_to_takes_no_numbers_away(
        self, client: httpx.AsyncClient, service: Any
    ) -> None:
        await known(client, service)
        before = (await client.get("/v1/definitions")).json()["version"]
        await service.redis.set("ver:segment", 10**15 - 1)
        await project.go_on(service.deps, service.redis)
        assert (await client.get("/v1/definitions")).json()["version"] == before
        assert int(await service.redis.get("ver:segment")) == before

    @pytest.mark.parametrize("odd", ["12.5", "9" * 30, pytest.param(LONG, id="long"), ["a list"]])
    async def test_what_is_none_of_ours_there_stops_nothing_and_is_written_over(
        self, client: httpx.AsyncClient, service: Any, odd: Any
    ) -> None:
        await known(client, service)
        for key in ("ver:segment", handover.HANDED, project.MARK):
            await service.redis.delete(key)
            await (service.redis.rpush(key, *odd) if isinstance(odd, list) else service.redis.set(key, odd))
        await project.go_on(service.deps, service.redis)
        assert await project.project(service.deps, service.redis) == 1
        era = b"0 " if isinstance(odd, list) else b"1 "  # a text may be the token of what was lost
        assert (await service.redis.get(project.MARK)).startswith(era)
        await project.go_on(service.deps, service.redis)
        async with service.deps.db.tx() as tx:
            assert int(await service.redis.get("ver:segment")) == await definitions.head(tx)
        await send(client, view(2, START + 1))
        await service.deps.relay.drain()
        async with service.deps.db.tx() as tx:
            assert await handover.known(tx, token := await handover.token_of(service.redis))
        assert len(token) == 16

    async def test_so_it_is_when_people_alone_were_lost(self, client: httpx.AsyncClient, service: Any) -> None:
        await known(client, service)
        await project.go_on(service.deps, service.redis)
        await project.project(service.deps, service.redis)
        mark = await service.redis.get(project.MARK)
        async with service.deps.db.tx() as tx:  # a standby that was behind, and whose sequence is ahead all the same
            assert await tx.execute("DELETE FROM handed") != "DELETE 0"
            await tx.execute("SELECT setval('outbox_id_seq', last_value + 32) FROM outbox_id_seq")
        await send(client, view(2, START + 1))
        with pytest.raises(handover.WentBack):
            await service.deps.relay.step(AUDIENCE)
        await project.go_on(service.deps, service.redis)
        assert await project.project(service.deps, service.redis) == 1
        assert int(mark.split(b" ")[0]) + 1 == int((await service.redis.get(project.MARK)).split(b" ")[0])
        await project.go_on(service.deps, service.redis)
        assert await project.project(service.deps, service.redis) == 0, "once"
        await send(client, view(3, START + 1))
        await read(service, "v:ann")
