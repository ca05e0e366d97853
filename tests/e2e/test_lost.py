"""Redis comes back empty: until everybody's document stands there again, nobody is taken for one of whom nothing is known."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx
import pytest
import redis
from devstack.testing import until

from tests.e2e.shop import Services, behind_edge, header

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def test_who_is_excluded_stays_so(services: Services, state: Path) -> None:
    with behind_edge(services, state / "lost") as shop:
        stack = shop.stack
        shop.slot("top")
        shop.segment("debtor")
        shop.block("on-credit", "top", none_of=["debtor"])
        rule = {"key": "credit", "name": "n", "status": "live", "all_groups": True, "segments": {"none_of": ["debtor"]}}
        shop.make("cart-rules", **rule, action={"type": "percent", "value": 10})
        debtor = shop.person("debtor")

        def cart() -> int:
            body = {"lines": [{"id": "1", "price": 1000}]}
            answer = httpx.post(f"{stack.url}/v1/cart", json=body, headers={**shop.key, **header(debtor)})
            return int(answer.json()["discount"])

        until(lambda: shop.sees("top") == "on-credit")
        assert (shop.sees("top", **header(debtor)), cart()) == ("top:default", 0)
        segments = stack.children["segment_svc"].popen
        assert segments is not None
        segments.send_signal(signal.SIGSTOP)
        try:
            redis.Redis.from_url(stack.redis).flushall()
            for _ in range(10):
                assert (shop.sees("top", **header(debtor)), cart()) == ("top:default", 0)
                time.sleep(0.2)
            lost = shop.context({k: v for k, v in debtor.items() if k.endswith("vid")})
            assert "__Host-ff_ctx" not in lost, "no edge is to take them for a stranger later"
        finally:
            segments.send_signal(signal.SIGCONT)
        answer = lambda: httpx.get(f"{stack.url}/v1/decisions?slots=top", headers={**shop.key, **header(debtor)}).json()  # noqa: E731
        until(lambda: "degraded" not in answer())
        assert (shop.sees("top", **header(debtor)), cart()) == ("top:default", 0)
