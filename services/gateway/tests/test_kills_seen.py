"""A name of what is killed is told to who may see it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from chassis.auth import Actor
from chassis.problems import Problem
from gateway.adapters.upstreams import CONTENT, PROMO
from gateway.routes.merchants import list_kills

KILLED = [{"kind": kind, "key": key} for kind in ("block", "rule", "slot") for key in ("k-at", "k-de")]
PATHS = {"block": (CONTENT, "/v1/blocks"), "rule": (PROMO, "/v1/cart-rules"), "slot": (CONTENT, "/v1/slots")}


class Owners:
    """Show k-de; `status` of anything else, None: no answer."""

    def __init__(self, status: int | None) -> None:
        self.status, self.asked = status, list[tuple[str, str]]()

    async def send(self, service: str, method: str, path: str, *, actor: Actor) -> httpx.Response:
        assert (method, actor.websites) == ("GET", ("de",))
        self.asked.append((service, path))
        if not path.endswith("k-de") and self.status is None:
            raise httpx.ConnectError("away")
        return httpx.Response(200 if path.endswith("k-de") else self.status or 0)


async def listed(owners: Owners, *websites: str) -> list[Any]:
    async def everything() -> list[Any]:
        return KILLED

    deps: Any = SimpleNamespace(merchants=owners, killer=SimpleNamespace(listed=everything))
    who: Any = SimpleNamespace(actor=Actor("ann", "viewer", websites))
    return (await list_kills(deps, who))["kills"]


async def test_who_has_some_websites_is_told_what_the_owners_show_him() -> None:
    owners = Owners(404)
    assert await listed(owners, "de") == [kill for kill in KILLED if kill["key"] == "k-de"]
    assert owners.asked == [(PATHS[k["kind"]][0], f"{PATHS[k['kind']][1]}/{k['key']}") for k in KILLED]


async def test_who_has_all_of_them_is_told_everything_whoever_is_away() -> None:
    owners = Owners(None)
    assert await listed(owners) == KILLED
    assert owners.asked == []


@pytest.mark.parametrize("status", [None, 500, 503, 401])
async def test_while_an_owner_cannot_say_nothing_is_told(status: int | None) -> None:
    with pytest.raises(Problem) as refused:
        await listed(Owners(status), "de")
    assert refused.value.status == 503
