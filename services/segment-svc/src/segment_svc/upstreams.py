"""Asks content-svc and promo-svc where a segment is in use. Control plane only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import httpx
from chassis.asking import ask
from chassis.auth import Actor, ServiceTokens
from chassis.problems import Problem

PROMO = "promo-svc"
MOST_BYTES, MOST_S = 16 << 20, 5.0  # of what a service says


class Users:
    """The services whose definitions may refer to segments: audience name -> base URL."""

    def __init__(self, client: httpx.AsyncClient, tokens: ServiceTokens, services: dict[str, str]) -> None:
        self._client, self._tokens, self._services = client, tokens, services

    async def of(
        self, key: str, reader: Actor, *, only: str = "", was: Sequence[str] = (), stays: Sequence[str] = ()
    ) -> list[str]:
        """Who uses the segment, by the names that the reader may know; of one service `only`; of a segment that `was` of some
        websites and `stays` of fewer, who would be without it.

        Raises Problem 503 users-unknown when a service cannot say: then nobody may delete it.
        """
        asked = {"segment": key, "was": was, "stays": stays}
        services = {name: url for name, url in self._services.items() if only in ("", name)}
        answers = await asyncio.gather(*(self._ask(name, url, asked, reader) for name, url in services.items()))
        return list(dict.fromkeys(user for answer in answers for user in answer))

    async def _ask(self, name: str, url: str, asked: Mapping[str, str | Sequence[str]], reader: Actor) -> list[str]:
        try:
            headers = {"authorization": f"Bearer {self._tokens.issue(name, reader)}"}
            answer = await ask(
                self._client,
                "GET",
                f"{url}/v1/usage",
                params=asked,
                headers=headers,
                most_bytes=MOST_BYTES,
                most_s=MOST_S,
            )
            answer.raise_for_status()
            return [str(user) for user in answer.json()["users"]]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise Problem("users-unknown", 503, f"{name} cannot say whether it uses the segment") from error
