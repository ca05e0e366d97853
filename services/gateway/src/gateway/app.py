"""Composition root of the gateway: read first. The raw hot path stands in front of the FastAPI application."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

import uvicorn
from chassis.auth import ServiceTokens
from chassis.bus import KafkaProducer
from chassis.cache import open_redis
from chassis.clock import Clock, SystemClock
from chassis.health import Health
from chassis.http import Limits, service_app
from chassis.pipe import Pipe
from chassis.service import Loop, Service, most_files
from chassis.telemetry import get_logger
from contracts.codec import Codec

from gateway.adapters.keys import Keys
from gateway.adapters.limits import Limiter, Most
from gateway.adapters.tokens import CustomerTokens
from gateway.adapters.upstreams import CONTENT, PROMO, SEGMENT, Coalescer, Upstreams
from gateway.deps import Deps
from gateway.domain.answer import encode
from gateway.domain.kept import Kept
from gateway.domain.said import Many, Messages, Selected
from gateway.domain.signing import Ring, Rings, secrets_of
from gateway.flows.decide import MOST_LAST_GOOD, Decider
from gateway.flows.kill import Killer
from gateway.flows.kills_kept import KillsKept
from gateway.flows.knowledge import Knowledge
from gateway.flows.people import MARK, Person
from gateway.flows.probe import Probes
from gateway.flows.purge import Purger
from gateway.flows.watch import WATCHED, Watcher
from gateway.lanes.asgi import Door, Lane
from gateway.lanes.connection import IDLE_S, UVICORN
from gateway.lanes.connections import Connections
from gateway.lanes.decisions import Decisions
from gateway.lanes.direct import Direct
from gateway.lanes.request import Reader
from gateway.routes import merchants as merchant_routes
from gateway.routes import shop
from gateway.settings import Settings

NAME = "gateway"
MOST_PEOPLE = 64 << 20  # bytes
log = get_logger("gateway")


@asynccontextmanager
async def build(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Service]:
    """The hot path over the API, and the loops that keep what it knows current."""
    clock = clock or SystemClock()
    redis = open_redis(settings.redis_url)
    urls = {SEGMENT: settings.segment_url, CONTENT: settings.content_url, PROMO: settings.promo_url}
    # Whoever keeps connections busy keeps them from their own kind only: merchants, shoppers, and news of what is published.
    upstreams, merchants, news = (Upstreams(urls, ServiceTokens(settings.service_secret, NAME)) for _ in range(3))
    knowledge, health = Knowledge(), Health()
    keys = Keys(settings.keys)
    tokens = CustomerTokens(settings.jwks, issuer=settings.jwt_issuer, audience=settings.jwt_audience)
    rings = _rings(settings)
    reader = Reader(keys, rings, tokens)
    limiter = Limiter(redis, clock, _most(settings), health)
    purger = Purger(settings.edge_urls, settings.purge_key, keys.websites, redis, clock, health)
    pipe = Pipe(
        settings.redis_url, read=Person, memory=Kept(MOST_PEOPLE), mark=MARK, watched=WATCHED, seen=lambda *s: watcher.seen(*s)
    )  # fmt: skip
    watcher = Watcher(knowledge, news, purger.changed, pipe.belong, clock, health)
    kept = KillsKept(news, health)
    killer = Killer(knowledge, redis, merchants, purger, clock, health, kept=kept, caches=settings.cache_urls)
    decider = _decider(settings, knowledge, pipe, upstreams, clock)
    producer = KafkaProducer(settings.kafka_bootstrap) if settings.kafka_bootstrap else None

    async def loaded() -> None:
        if not knowledge.loaded:
            raise ConnectionError

    app = service_app("Footfall", pings={"targeting": loaded, "redis": redis.ping}, health=health, public=True)
    app.openapi = _described  # type: ignore[method-assign]
    app.include_router(shop.router)
    app.include_router(merchant_routes.router)
    probes = Probes(settings.edge_urls, settings.cache_urls, rings, settings.hosts[0], clock, health)
    decisions = Decisions(decider, keys, reader, limiter, rings=rings, probes=probes)
    door = Door(settings.hosts)
    connections = Connections(settings.connections_per_address, health, rings.front, files=most_files())
    app.state.deps = Deps(
        settings, clock, keys, tokens, upstreams, merchants, decider, reader, rings, limiter, Codec(), producer, encode,
        killer, purger,
    )  # fmt: skip
    try:
        loops = [Loop("pipe", pipe.run), Loop("heads", watcher.heads), Loop("watch", watcher.run)]
        loops += [Loop("purge", purger.run), Loop("kills kept", kept.run), Loop("kills", killer.run)]
        loops += [Loop("probe", probes.run), Loop("limits", limiter.run), Loop("connections", connections.run)]
        lane = Lane(Limits(app, service=NAME), door, decisions, keys, reader, limiter)
        yield Service(
            NAME,
            lane,
            settings.host,
            settings.port,
            loops,
            http=_http(connections, door, decisions),
            keep_alive_s=IDLE_S,
        )
    finally:
        if producer is not None:
            await producer.stop()
        for opened in (upstreams, merchants, news, purger, probes):
            await opened.aclose()
        await redis.aclose()


def _most(settings: Settings) -> Most:
    return Most(
        person=settings.person_per_minute,
        block=settings.block_per_minute,
        key=settings.key_per_minute,
        events=settings.events_per_minute,
        bytes=settings.bytes_per_minute,
    )


def _rings(settings: Settings) -> Rings:
    return Rings(
        visitor=Ring(settings.visitor_keys),
        context=Ring(settings.context_keys),
        edge=Ring(settings.edge_keys),
        aud=Ring(settings.aud_keys),
        front=settings.front_key.encode(),
        caches=secrets_of(settings.cache_keys),
    )


def _http(connections: Connections, door: Door, decisions: Decisions) -> Any:
    """How connections are spoken to; the fast lane leans on the inside of one version of uvicorn."""
    if uvicorn.__version__ != UVICORN:
        log.warning("fast_lane_closed", uvicorn=uvicorn.__version__, needed=UVICORN)
        return "httptools"
    return partial(Direct, connections, door, decisions)


@cache
def _described() -> dict[str, Any]:
    """Every route behind this door, those of the services included; tools/openapi.py writes it."""
    return dict(json.loads(files("gateway.routes").joinpath("openapi.json").read_text()))


def _decider(
    settings: Settings, knowledge: Knowledge, pipe: Pipe[Person], upstreams: Upstreams, clock: Clock
) -> Decider:
    budget_s = settings.budget_ms / 1000
    return Decider(
        knowledge,
        pipe,
        Coalescer(upstreams, CONTENT, "/v1/select-many", Many[Selected], most_s=budget_s),
        Coalescer(upstreams, PROMO, "/v1/messages-many", Many[Messages], most_s=budget_s),
        clock,
        ZoneInfo(settings.time_zone),
        budget_s,
        settings.share_s,
        Kept(MOST_LAST_GOOD),
    )
