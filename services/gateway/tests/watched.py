"""Three services whose versions are watched, as they are told to be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
from gateway.adapters.upstreams import CONTENT, PROMO, SEGMENT
from gateway.flows.knowledge import Knowledge

VIP = {"id": 1, "key": "vip", "websites": [], "atom": 1, "epoch": 0, "since": 0, "residual": None}


class Shop:
    """Three services, as they are told to be; `needs` are the segments without which content is not to be followed."""

    def __init__(self) -> None:
        self.versions = {SEGMENT: 1, CONTENT: 5, PROMO: 1}
        self.needs: int | None = 0
        self.asked, self.told = 0, list[tuple[int, int]]()
        self.heads = dict[str, int]()  # what they say of their heads, if not the version
        self.redis: str | None = None
        self.home: str | None = None  # of documents
        self.segments, self.lost = list[dict[str, Any]](), ""

    async def json(self, service: str, method: str, path: str, shape: Any, **_: Any) -> Any:
        return msgspec.convert(self._says(service, path), shape)

    def _says(self, service: str, path: str) -> dict[str, Any]:
        version = self.versions[service]
        if path == "/v1/head":
            return {
                "version": self.heads.get(service, version),
                "redis": self.redis,
                "home": self.home,
                "at_ms": time.time_ns() // 1_000_000,
            }
        self.asked += 1
        changes = [
            {"version": version, "tags": [f"{service}:{version}"], "needs": self.needs if service == CONTENT else 0}
        ]
        if service == self.lost:
            raise httpx.ConnectError("away")
        common = {"version": version, "changes": changes, "segments": self.segments if service == SEGMENT else []}
        return {**common, "empty": {"visitor": "", "customer": ""}, "slots": {}, "rules": []}

    def changed(self, kind: int, said: Mapping[str, Any]) -> None:
        self.told.append((kind, said["version"]))


def told(segment: int, content: int, promo: int) -> list[bytes | None]:
    return [b"%d" % version if version else None for version in (segment, content, promo)]


def soon_s() -> float:
    """Now."""
    return asyncio.get_running_loop().time()


async def asked(knowledge: Knowledge, *versions: int, ago_s: float = 0.0) -> float:
    """Every service said this of its head so long ago; answers now."""
    now_s = asyncio.get_running_loop().time()
    for kind, version in enumerate(versions):
        knowledge.hear(kind, version, now_s - ago_s)
    return now_s
