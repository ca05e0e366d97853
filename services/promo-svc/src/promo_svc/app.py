"""Composition root of promo-svc: read first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.beside import Beside
from chassis.clock import Clock, SystemClock
from chassis.http import Limits, require_service
from chassis.publishing import publisher
from chassis.service import Service

from promo_svc import api
from promo_svc.deps import Deps
from promo_svc.settings import Settings
from promo_svc.snapshot import build as build_snapshot

SCHEMA = "promo"
NAME = "promo-svc"
THREADS, WAITING = 4, 8  # for large carts: each may take DEAR_CART_S, and who waits has a connection that others need
SAVE_THREADS, SAVE_WAITING = 2, 8


@asynccontextmanager
async def build(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Service]:
    """The API, the relay of its facts, and the snapshot that follows the published version."""
    async with publisher(settings, NAME, schema=SCHEMA, version_key="ver:promo", build=build_snapshot) as opened:
        carts, saves = Beside(THREADS, WAITING), Beside(SAVE_THREADS, SAVE_WAITING)
        opened.app.state.deps = Deps(
            opened.db, clock or SystemClock(), opened.relay, opened.snapshot, opened.segment_version, carts, saves
        )
        for routes in (api.router, api.merchants):
            opened.app.include_router(routes, dependencies=[require_service(opened.tokens, NAME)])
        try:
            yield Service(NAME, Limits(opened.app, service=NAME), settings.host, settings.port, opened.loops)
        finally:
            carts.close()
            saves.close()
