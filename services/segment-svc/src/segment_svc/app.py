"""Composition root of segment-svc: read first. Builds the adapters, then the api, the worker, or both."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
from chassis.auth import ServiceTokens
from chassis.bus import KafkaProducer
from chassis.cache import VersionedWriter, open_redis
from chassis.clock import SystemClock
from chassis.db import Database
from chassis.http import require_service, service_app
from chassis.outbox import Relay
from chassis.service import Loop, Service

from segment_svc import api, wire
from segment_svc.consumer import consumer
from segment_svc.definitions import RuleBook
from segment_svc.deps import Deps
from segment_svc.flows import backfill, sweep
from segment_svc.settings import Settings
from segment_svc.upstreams import Users

SCHEMA = "segment"


async def build(settings: Settings, *, role: str = "all") -> Service:
    """Role `api` answers HTTP, `worker` consumes, sweeps and backfills, `all` does both in one process."""
    db = await Database.open(settings.database_url, schema=SCHEMA)
    redis = open_redis(settings.redis_url)
    tokens = ServiceTokens(settings.service_secret, "segment-svc")
    client = httpx.AsyncClient(timeout=2.0)
    producer = KafkaProducer(settings.kafka_bootstrap) if settings.kafka_bootstrap else None
    writer = VersionedWriter(redis)

    async def facts(payloads: Sequence[bytes]) -> None:
        if producer is not None:
            await producer.send_all(wire.records_of(payloads))

    async def audience(payloads: Sequence[bytes]) -> None:
        await writer.put_many(wire.documents_of(payloads))

    async def release(payloads: Sequence[bytes]) -> None:
        await redis.set("ver:segment", max(int(p) for p in payloads))

    relay = Relay(db, {wire.AUDIENCE: audience, wire.RELEASE: release, wire.FACTS: facts})
    services = {"content-svc": settings.content_url, "promo-svc": settings.promo_url}
    deps = Deps(
        db=db,
        clock=SystemClock(),
        rulebook=RuleBook(horizon_ms=settings.horizon_ms, lead_ms=settings.lead_ms),
        relay=relay,
        users=Users(client, tokens, {name: url for name, url in services.items() if url}),
    )
    app = service_app("segment-svc", pings={"postgres": db.ping, "redis": redis.ping})
    app.state.deps = deps
    if role != "worker":
        app.include_router(api.router, dependencies=[require_service(tokens, "segment-svc")])
    loops = [Loop("relay", relay.run)]  # first in, last out: the facts of the last batch must still leave
    if role != "api":
        loops += [
            Loop("sweep", lambda stop: sweep.run(deps, stop)),
            Loop("backfill", lambda stop: backfill.run(deps, stop)),
        ]
        if settings.kafka_bootstrap:
            loops.append(Loop("consumer", consumer(deps, settings).run))
    starters = [producer.start] if producer else []
    closers = [client.aclose, *([producer.stop] if producer else []), redis.aclose, db.close]
    return Service(app=app, loops=loops, starters=starters, closers=closers, host=settings.host, port=settings.port)
