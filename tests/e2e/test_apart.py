"""A gateway that is at another Redis than everybody else, as one that stayed behind at a failover: it shows nothing that may be
killed, and says so. Real servers."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from devstack.servers import Valkey
from devstack.testing import until

from tests.e2e.shop import Services, behind_edge

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def test_what_may_be_killed_is_not_shown_where_kills_do_not_come_and_is_again_where_they_do(
    services: Services, state: Path
) -> None:
    home = state / "apart"
    (home / "old").mkdir(parents=True)
    old = Valkey(home / "old")
    old.start()
    try:
        with behind_edge(services, home, REDIS_URL=old.url) as shop:
            shop.slot("top")
            shop.block("offer", "top")
            until(lambda: shop.shown("top") == "top:default" and "content" in shop.ask("slots=top").json()["degraded"])
            until(lambda: httpx.get(f"{shop.stack.url}/readyz").status_code == 503)
            assert "agreement" in httpx.get(f"{shop.stack.url}/readyz").text
            cart = {"currency": "EUR", "lines": [{"id": "a", "sku": "a", "price": 100, "quantity": 1}]}
            priced = httpx.post(f"{shop.stack.url}/v1/cart", json=cart, headers=shop.key).json()
            assert "promotions" in priced["degraded"]
            old.stop()  # nor where there is none, while the others have one
            until(lambda: httpx.get(f"{shop.stack.url}/readyz?exclude=redis").status_code == 503)
            assert shop.shown("top") == "top:default"
    finally:
        old.stop()
