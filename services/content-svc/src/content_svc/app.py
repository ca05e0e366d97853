"""Composition root of content-svc: read first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.http import Limits, require_service
from chassis.publishing import publisher
from chassis.service import Service

from content_svc import api
from content_svc.deps import Deps
from content_svc.settings import Settings
from content_svc.snapshot import build as build_snapshot

SCHEMA = "content"
NAME = "content-svc"


@asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[Service]:
    """The API, the relay of its facts, and the snapshot that follows the published version."""
    async with publisher(settings, NAME, schema=SCHEMA, version_key="ver:content", build=build_snapshot) as opened:
        opened.app.state.deps = Deps(opened.db, opened.relay, opened.snapshot, opened.segment_version, opened.reached)
        for routes in (api.router, api.merchants):
            opened.app.include_router(routes, dependencies=[require_service(opened.tokens, NAME)])
        yield Service(NAME, Limits(opened.app, service=NAME), settings.host, settings.port, opened.loops)
