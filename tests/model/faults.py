"""What goes wrong: a service that stalls or crashes, a Redis that says nothing."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil
from devstack.process import listens
from world import STALL_S, World

SERVICES = ("content_svc", "promo_svc", "segment_svc")
READY_S = 60


@dataclass
class Faults:
    """Of the parts of a world."""

    world: World

    async def stall(self) -> None:
        """A service answers nobody for a while, and refuses nobody either."""
        process = self.world.stack.children[self.world.chance.choice(SERVICES)].popen
        assert process is not None
        await self._stopped(process.pid)

    async def silence(self) -> None:
        """Redis says nothing for a while; kills are told by it, and wait."""
        port = urlsplit(self.world.stack.redis).port or 0
        found = [p.pid for p in psutil.Process().children(recursive=True) if listens(p.pid, port)]
        async with self.world.stopped["redis"]:
            await self._stopped(found[0])

    async def _stopped(self, pid: int) -> None:
        psutil.Process(pid).send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self.world.chance.uniform(0.3, STALL_S))
        finally:
            psutil.Process(pid).send_signal(signal.SIGCONT)

    async def crash(self) -> None:
        """A service is killed, is away for a moment, and comes back."""
        name = self.world.chance.choice(SERVICES)
        stack, child = self.world.stack, self.world.stack.children[name]
        async with self.world.stopped[name]:
            child.kill()
            await asyncio.sleep(self.world.chance.uniform(0.0, STALL_S))
            child.start()
            await asyncio.to_thread(child.wait_ready, stack.ports[name], seconds=READY_S)

    async def rest(self) -> None:
        """Nothing goes wrong for a while."""
        await asyncio.sleep(self.world.chance.uniform(4, 8))
