"""Composition root of promo-svc: read first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.db import now_ms
from chassis.http import Limits, require_service
from chassis.publishing import publisher
from chassis.service import Service
from chassis.turns import Turns

from promo_svc import api
from promo_svc.deps import Deps, Now
from promo_svc.settings import Settings
from promo_svc.snapshot import build as build_snapshot
from promo_svc.till import Till

SCHEMA = "promo"
NAME = "promo-svc"
CARTS_WAITING, CARTS_S = 8, 10.0  # of a website: each may take DEAR_CART_S, and they have connections that others need


@asynccontextmanager
async def build(settings: Settings, *, now: Now = now_ms) -> AsyncIterator[Service]:
    """The API, the relay of its facts, and the snapshot that follows the published version."""
    async with (
        publisher(settings, NAME, schema=SCHEMA, version_key="ver:promo", build=build_snapshot) as opened,
        Till.open(settings.database_url, schema=SCHEMA) as till,
    ):
        carts = Turns(1, waiting=CARTS_WAITING, patience_s=CARTS_S)
        opened.app.state.deps = Deps(opened.db, now, opened.relay, opened.snapshot, opened.segment_version, till, carts)
        for routes in (api.router, api.merchants):
            opened.app.include_router(routes, dependencies=[require_service(opened.tokens, NAME)])
        yield Service(NAME, Limits(opened.app, service=NAME), settings.host, settings.port, opened.loops)
