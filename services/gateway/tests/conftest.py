"""Tests of this folder share `rigged`, `house`, `watched` and `killing`."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chassis.cache import open_redis
from chassis.clock import SystemClock
from chassis.health import Health
from gateway.flows import watch
from gateway.flows.knowledge import Knowledge
from gateway.flows.watch import Watcher
from watched import Shop


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(watch, "RETRY_S", 0.0)
    return Shop()


@pytest.fixture
def knowledge() -> Knowledge:
    return Knowledge()


@pytest.fixture
def watcher(shop: Shop, knowledge: Knowledge) -> Watcher:
    upstreams: Any = shop
    return Watcher(knowledge, upstreams, shop.changed, lambda _: None, SystemClock(), Health())
