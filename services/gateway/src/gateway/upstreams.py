"""The three services, asked with short-lived tokens. Off the hot path: only misses, refreshes and writes come here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from chassis.auth import ServiceTokens

SEGMENT, CONTENT, PROMO = "segment-svc", "content-svc", "promo-svc"


class Upstreams:
    """Bounded: at most 16 connections, so that httpx stays quick and a slow service cannot take everything."""

    def __init__(
        self, urls: Mapping[str, str], tokens: ServiceTokens, *, transports: Mapping[str, Any] | None = None
    ) -> None:
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)
        self._tokens = tokens
        self._clients = {
            name: httpx.AsyncClient(base_url=url, timeout=5.0, limits=limits, transport=(transports or {}).get(name))
            for name, url in urls.items()
        }

    async def send(self, service: str, method: str, path: str, **more: Any) -> httpx.Response:
        """One request; raises httpx.HTTPError when there is no answer."""
        headers = {**more.pop("headers", {}), "authorization": f"Bearer {self._tokens.issue(service)}"}
        return await self._clients[service].request(method, path, headers=headers, **more)

    async def json(self, service: str, method: str, path: str, **more: Any) -> Any:
        """The JSON of a good answer; raises httpx.HTTPError for a bad one."""
        answer = await self.send(service, method, path, **more)
        answer.raise_for_status()
        return answer.json()

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()
