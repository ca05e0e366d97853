"""Every route of a service says who may use it: a merchant with a role, a storefront's server, or other services."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import content_svc.api
import httpx
import promo_svc.api
import pytest
import segment_svc.api
from chassis.auth import SERVER, Actor, ServiceTokens
from chassis.http import require_service
from chassis.problems import install
from fastapi import FastAPI

TOKENS = ServiceTokens("s" * 32, "svc")
SERVICES = (content_svc.api, promo_svc.api, segment_svc.api)
ROUTES = [
    (module, method, route.path)
    for module in SERVICES
    for router in (module.router, module.merchants)
    for route in router.routes
    for method in route.methods
]


def needed(method: str, path: str) -> str | None:
    """The role a route is for, as the reference has it: who looks is a viewer, who changes a marketer."""
    noun = path.split("/")[2]
    if noun == "redemptions":
        return SERVER
    if noun in ("segments", "profiles", "backfills", "positions", "blocks", "slots", "cart-rules", "usage"):
        return "viewer" if method == "GET" or path.endswith(("/preview", "/named")) else "marketer"
    return None


def app(module: ModuleType) -> Any:
    made = FastAPI()
    install(made)
    for router in (module.router, module.merchants):
        made.include_router(router, dependencies=[require_service(TOKENS, "svc")])
    made.state.deps = None  # whoever gets in fails for want of it
    return httpx.ASGITransport(made, raise_app_exceptions=False)


APPS = {module: app(module) for module in SERVICES}


@pytest.mark.parametrize(
    ("module", "method", "path"), ROUTES, ids=[f"{m.__name__.split('.')[0]} {how} {path}" for m, how, path in ROUTES]
)
async def test_nobody_else_gets_in(module: ModuleType, method: str, path: str) -> None:
    url = re.sub(r"\{redemption\}", "00000000-0000-0000-0000-000000000001", path)
    url = re.sub(r"\{partition\}", "0", url)
    url = re.sub(r"\{[^}]*\}", "a", url)
    role = needed(method, path)
    async with httpx.AsyncClient(transport=APPS[module], base_url="http://svc") as client:
        assert (await client.request(method, url)).status_code == 401
        for actor in (
            None,
            *(Actor("ann", name) for name in ("", "viewer", "editor", "marketer", "admin", SERVER, "root")),
        ):
            headers = {"authorization": f"Bearer {TOKENS.issue('svc', actor)}"}
            status = (await client.request(method, url, headers=headers)).status_code
            assert (status != 403) is (role is None or (actor is not None and actor.may(role))), (actor, status)
            assert status != 401


def test_every_kind_of_route_is_among_them() -> None:
    roles = {needed(method, path) for _, method, path in ROUTES}
    assert (len(ROUTES) > 40, roles) == (True, {None, "viewer", "marketer", SERVER})
