"""Composition root of segment-svc: read first. Builds the adapters, then the api, the worker, or both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from chassis.auth import ServiceTokens
from chassis.beside import Beside
from chassis.bus import KafkaProducer
from chassis.cache import open_redis
from chassis.clock import Clock, SystemClock
from chassis.db import PASSING, Database
from chassis.health import Health
from chassis.http import Limits, require_service, service_app
from chassis.outbox import Handler, Relay
from chassis.publishing import AHEAD_S, SEGMENT_VERSION, handlers
from chassis.reached import Reached
from chassis.service import Loop, Service
from contracts.codec import Codec
from fastapi import FastAPI

from segment_svc import api, wire
from segment_svc.consumer import consumer
from segment_svc.definitions import RuleBook
from segment_svc.deps import Deps
from segment_svc.flows import backfill, project, set_back, sweep
from segment_svc.handover import Handover
from segment_svc.settings import Settings
from segment_svc.store import Recent
from segment_svc.upstreams import PROMO, Users

SCHEMA = "segment"
COMPILE_S = 60.0
TRY_THREADS, TRY_WAITING, TRY_S = 2, 8, 20.0


@dataclass(frozen=True, slots=True)
class Adapters:
    """What build puts together; tests take it with a clock of their own."""

    deps: Deps
    app: FastAPI
    redis: Any


@asynccontextmanager
async def adapters(settings: Settings, *, clock: Clock) -> AsyncIterator[Adapters]:
    """Open every adapter; closed in reverse at the end."""
    db = await Database.open(settings.database_url, schema=SCHEMA)
    redis = open_redis(settings.redis_url)
    tokens = ServiceTokens(settings.service_secret, "segment-svc")
    producer = KafkaProducer(settings.kafka_bootstrap) if settings.kafka_bootstrap else None
    services = {"content-svc": settings.content_url, PROMO: settings.promo_url}
    health = Health()
    compiling = Beside(1, waiting=1, patience_s=COMPILE_S)
    trying = Beside(TRY_THREADS, waiting=TRY_WAITING, patience_s=TRY_S)

    async def ahead() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AHEAD_S):
                await project.go_on(deps, redis)

    async with httpx.AsyncClient(timeout=2.0) as client:
        deps = Deps(
            db=db,
            clock=clock,
            rulebook=RuleBook(settings, compiling, clock, health),
            relay=Relay(db, _handlers(db, redis, producer), health),
            codec=Codec(),
            users=Users(client, tokens, {name: url for name, url in services.items() if url}),
            recent=Recent(),
            health=health,
            trying=trying,
            reached=Reached(redis, health),
            ahead=ahead,
        )
        app = service_app(
            "segment-svc", pings={"postgres": db.ping, "redis": redis.ping}, health=health, passing=PASSING
        )
        app.state.deps = deps
        await deps.reached.look()
        await project.go_on(deps, redis)
        for routes in (api.router, api.merchants):
            app.include_router(routes, dependencies=[require_service(tokens, "segment-svc")])
        try:
            yield Adapters(deps, app, redis)
        finally:
            compiling.close()
            trying.close()
            if producer is not None:
                await producer.stop()
            await redis.aclose()
            await db.close()


def _handlers(db: Database, redis: Any, producer: KafkaProducer | None) -> dict[str, Handler]:
    """Where each channel of the outbox goes; documents first, so that facts find them written."""
    return {wire.AUDIENCE: Handover(db, redis), **handlers(redis, producer, version_key=SEGMENT_VERSION)}


@asynccontextmanager
async def build(settings: Settings, *, role: str = "all") -> AsyncIterator[Service]:
    """Role `api` answers HTTP, `worker` consumes, sweeps and backfills, `all` does both in one process."""
    async with adapters(settings, clock=SystemClock()) as built:
        deps = built.deps
        # First in, last out: the facts of the last batch must still leave.
        loops = [Loop("relay", deps.relay.run), Loop("reached", deps.reached.run)]
        if role != "api":
            loops += [
                Loop("sweep", lambda stop: sweep.run(deps, stop)),
                Loop("set back", lambda stop: set_back.run(deps, stop)),
                Loop("backfill", lambda stop: backfill.run(deps, stop)),
                Loop("project", lambda stop: project.run(deps, built.redis, stop)),
            ]
            if settings.kafka_bootstrap:
                loops.append(Loop("consumer", consumer(deps, settings).run))
        app = Limits(built.app, service="segment-svc")
        yield Service("segment-svc", app, settings.host, settings.port, loops)
