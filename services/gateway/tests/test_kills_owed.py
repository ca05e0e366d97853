"""Who owns what was killed is asked to switch it off until he has answered, as who killed it, and never again."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from chassis.auth import Actor
from gateway.adapters.upstreams import CONTENT, PROMO
from killing import ANN, Gateway

pytestmark = pytest.mark.servers
BLOCK, RULE = (CONTENT, "/v1/blocks/b/disable", ANN), (PROMO, "/v1/cart-rules/r/disable", ANN)


class Owners:
    """Answer by service; None: not at all."""

    def __init__(self) -> None:
        self.says: dict[str, int | None] = {CONTENT: None, PROMO: None}
        self.asked = list[tuple[str, str, Actor]]()

    async def send(self, service: str, method: str, path: str, *, actor: Actor, most_s: float) -> httpx.Response:
        self.asked.append((service, path, actor))
        status = self.says[service]
        if status is None:
            raise httpx.ConnectError("away")
        return httpx.Response(status)


@pytest.fixture
def owners() -> Owners:
    return Owners()


async def killed(gateway: Gateway) -> dict[str, bool]:
    """What is, and whether its owner is still to be asked."""
    async with gateway.running():
        await gateway.killer.kill("block:b", actor=ANN)
        await gateway.killer.kill("rule:r", actor=ANN)
    return await owed(gateway)


async def owed(gateway: Gateway) -> dict[str, bool]:
    return {kill["key"]: kill["owed"] for kill in await gateway.killer.listed()}


@pytest.mark.parametrize("away", [None, 500, 503])
async def test_who_was_away_is_asked_as_the_same_until_he_answers_and_then_no_more(
    redis: Any, owners: Owners, away: int | None
) -> None:
    first, gateway = (Gateway(redis, owners=owners) for _ in range(2))
    owners.says = {CONTENT: away, PROMO: 200}
    assert await killed(first) == {"b": True, "r": False}
    assert owners.asked.count(RULE) == 1
    owners.asked.clear()
    await gateway.look()
    await gateway.killer.ask_owners()
    assert (owners.asked, await owed(gateway)) == ([BLOCK], {"b": True, "r": False})
    owners.says[CONTENT] = 200
    await gateway.killer.ask_owners()
    await gateway.look()
    await gateway.killer.ask_owners()
    assert (owners.asked, await owed(gateway)) == ([BLOCK] * 2, {"b": False, "r": False})


async def test_one_that_is_away_keeps_nobody_from_the_other(redis: Any, owners: Owners) -> None:
    gateway = Gateway(redis, owners=owners)
    assert await killed(gateway) == {"b": True, "r": True}
    owners.says[PROMO] = 404
    owners.asked.clear()
    await gateway.look()
    await gateway.killer.ask_owners()
    assert (owners.asked, await owed(gateway)) == ([BLOCK, RULE], {"b": True, "r": False})


async def test_what_was_lifted_or_killed_anew_meanwhile_is_left_as_it_is(redis: Any, owners: Owners) -> None:
    gateway = Gateway(redis, owners=owners)
    await killed(gateway)
    await gateway.look()
    old = gateway.killer._copy.names
    owners.says = {CONTENT: 200, PROMO: 200}
    await redis.hdel("kills", "block:b")
    await gateway.killer._store("rule:r", anew := type(old["rule:r"])("bob", 9, "admin"))
    for name, kill in old.items():
        assert await gateway.killer._owe(name, kill, "") is None
    assert (await gateway.look(), gateway.killer._copy.names) == ({"rule:r"}, {"rule:r": anew})
