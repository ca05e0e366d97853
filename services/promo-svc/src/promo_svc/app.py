"""Composition root of promo-svc: read first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.beside import Beside
from chassis.db import now_ms
from chassis.http import Limits, require_service
from chassis.publishing import publisher
from chassis.service import Loop, Service

from promo_svc import api
from promo_svc.deps import Deps, Now
from promo_svc.settings import Settings
from promo_svc.snapshot import build as build_snapshot
from promo_svc.till import Till
from promo_svc.uses import UsedUp

SCHEMA = "promo"
NAME = "promo-svc"
# Threads, and of a website, how many wait, and for how long: who waits has a connection that others need.
CARTS_THREADS, CARTS_WAITING, CARTS_S = 4, 8, 10.0
SAVES_THREADS, SAVES_WAITING, SAVES_S = 2, 8, 20.0


@asynccontextmanager
async def build(settings: Settings, *, now: Now = now_ms) -> AsyncIterator[Service]:
    """The API, the relay of its facts, the snapshot that follows the published version, and the look at used-up coupons."""
    async with (
        publisher(settings, NAME, schema=SCHEMA, version_key="ver:promo", build=build_snapshot) as opened,
        Till.open(settings.database_url, schema=SCHEMA) as till,
    ):
        carts = Beside(CARTS_THREADS, waiting=CARTS_WAITING, patience_s=CARTS_S)
        uses = UsedUp(opened.db, opened.snapshot, now, opened.health)
        await uses.look()
        saves = Beside(SAVES_THREADS, waiting=SAVES_WAITING, patience_s=SAVES_S)
        opened.app.state.deps = Deps(
            opened.db,
            now,
            opened.relay,
            opened.snapshot,
            opened.segment_version,
            till,
            carts,
            saves,
            opened.reached,
            lambda: uses.rules,
        )
        for routes in (api.router, api.merchants):
            opened.app.include_router(routes, dependencies=[require_service(opened.tokens, NAME)])
        loops = [*opened.loops, Loop("coupon uses", uses.run)]
        try:
            yield Service(NAME, Limits(opened.app, service=NAME), settings.host, settings.port, loops)
        finally:
            carts.close()
            saves.close()
