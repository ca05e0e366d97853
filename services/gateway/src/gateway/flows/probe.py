"""Called by the gateway's clock, and when an edge proves with a key that is new: asks every edge as several people, of whom
some pretend, and lets those share that tell them apart.

A hit never comes here, so what an edge does with the copies it has is seen from outside only.
"""

from __future__ import annotations

import asyncio
import secrets as random
from collections.abc import Callable, Sequence

import httpx
from chassis.asking import SHORT, ask
from chassis.clock import Clock
from chassis.health import Health
from chassis.service import repeat

from gateway.adapters.upstreams import MOST_IDLE_S
from gateway.domain import probing
from gateway.domain.probing import ORDERS, ORDERS_BY_URL, Step
from gateway.domain.signing import Rings
from gateway.telemetry import PROBES

LOOK_S, AGAIN_S, ANSWER_S = 30.0, 1.0, 2.0
Orders = Sequence[Sequence[str]]


class Unsafe(Exception):
    """An edge gives somebody what is for others. `key_id`: what it proves with."""

    def __init__(self, cause: str, key_id: str) -> None:
        super().__init__(cause)
        self.key_id = key_id


class Probes:
    """Which keys of edges are trusted: those of which an edge passed, and none failed, when they were asked last."""

    def __init__(
        self, edges: Sequence[str], caches: Sequence[str], rings: Rings, host: str, clock: Clock, health: Health
    ) -> None:
        """`caches` say that they key by the URL. `host`: a name we go by."""
        self._edges, self._caches, self._rings, self._clock, self._health = edges, caches, rings, clock, health
        self._client = httpx.AsyncClient(
            headers={"host": host}, timeout=ANSWER_S, limits=httpx.Limits(keepalive_expiry=MOST_IDLE_S)
        )
        self._trusted: frozenset[str] = frozenset()
        self._met: set[str] = set()
        self._new = asyncio.Event()

    def trusts(self, key_id: str) -> bool:
        """Whether an edge that proves with this key may keep what is for others too."""
        if key_id not in self._met:
            self._met.add(key_id)
            self._new.set()
        return key_id in self._trusted

    async def run(self, stop: asyncio.Event) -> None:
        """Ask again and again, until `stop` is set."""
        await repeat(self.look, stop, name="edge probe", idle_s=LOOK_S, health=self._health, wake=self._new)

    async def look(self) -> bool:
        """Ask every edge once; True when one did not answer, and is to be asked again soon."""
        asked = {f"edge {n}": self._ask(url, ORDERS, self._steps) for n, url in enumerate(self._edges)}
        asked |= {
            f"edge cache {n}": self._ask(url, ORDERS_BY_URL, self._steps_by_url) for n, url in enumerate(self._caches)
        }
        found = await asyncio.gather(*asked.values(), return_exceptions=True)
        for name, said in zip(asked, found, strict=True):
            result = "passed" if isinstance(said, str) else "unsafe" if isinstance(said, Unsafe) else "silent"
            PROBES.labels(result=result).inc()
            cause = {"unsafe": f"may not share: it {said}", "silent": f"may not share: {type(said).__name__}"}
            self._health.set(name, cause.get(result))
        unsafe = {said.key_id for said in found if isinstance(said, Unsafe)}
        self._trusted = frozenset(said for said in found if isinstance(said, str) and said) - unsafe
        silent = any(isinstance(said, Exception) and not isinstance(said, Unsafe) for said in found)
        if silent:
            await asyncio.sleep(AGAIN_S)
        return silent

    def _steps(self, name: str, now_s: int) -> dict[str, Step]:
        rings = self._rings
        return probing.steps(rings.visitor, rings.context, name, random.token_bytes(16), now_s=now_s)

    def _steps_by_url(self, name: str, now_s: int) -> dict[str, Step]:
        return probing.steps_by_url(self._rings.visitor, self._rings.aud, name, now_s=now_s)

    async def _ask(self, edge: str, orders: Orders, steps_of: Callable[[str, int], dict[str, Step]]) -> str:
        """The id of the key an edge proves with. Raises Unsafe, httpx.HTTPError, ValueError."""
        key_id = ""
        for order in orders:
            name = probing.question(self._rings.edge, random.token_bytes(8))
            steps = steps_of(name, self._clock.now_ms() // 1000)
            for who in order:
                said_of = f"&aud={steps[who].aud}" if steps[who].aud else ""
                url = f"{edge.rstrip('/')}/v1/decisions?slots={name}{said_of}"
                answer = await ask(
                    self._client, "GET", url, headers=steps[who].headers, most_bytes=SHORT, most_s=ANSWER_S
                )
                said = answer.raise_for_status().json()
                wrong = probing.fault(steps[who], said)
                key_id = key_id or (str(said.get("edge", "")) if isinstance(said, dict) else "")
                if wrong is not None:
                    raise Unsafe(f"{wrong} ({who})", key_id)
        return key_id

    async def aclose(self) -> None:
        """Close the connections to edges."""
        await self._client.aclose()
