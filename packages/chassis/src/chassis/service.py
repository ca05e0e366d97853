"""How a process lives: start what it needs, run its loops beside HTTP, and drain in reverse on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import uvicorn
import uvloop
from prometheus_client import start_http_server

from chassis import telemetry
from chassis.health import Health
from chassis.pace import pause_of, pause_s
from chassis.telemetry import get_logger

log = get_logger("service")


class HasAddress(Protocol):
    """Settings every process has."""

    @property
    def metrics_port(self) -> int:
        """Where metrics are served; 0 for nowhere."""
        ...


@dataclass(frozen=True, slots=True)
class Loop:
    """Something that runs until the event it is given is set."""

    name: str
    run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Service:
    """A built process. Loops are listed so that each outlives those after it. `http`: uvicorn's, or a protocol of our own.

    `keep_alive_s`: how long an idle connection is kept.
    """

    name: str
    app: Any
    host: str
    port: int
    loops: Sequence[Loop] = ()
    http: Any = "httptools"
    keep_alive_s: int = 5


DRAIN_S, MOST_PAUSE_S = 15.0, 10.0
Build = Callable[[Any], AbstractAsyncContextManager[Service]]


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the process decides when to drain."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave signals alone."""
        yield


def run(build: Build, settings: HasAddress) -> None:
    """Run a service until SIGTERM or SIGINT; returns when everything is drained."""
    uvloop.run(_main(build, settings))


async def _main(build: Build, settings: HasAddress) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stopping.set)
    async with build(settings) as service:
        telemetry.configure(service.name)
        _settle_memory()
        if settings.metrics_port:
            start_http_server(settings.metrics_port, addr=service.host)
        await serve(service, stopping)


async def repeat(
    work: Callable[[], Awaitable[bool]], stop: asyncio.Event, *, name: str, idle_s: float, health: Health,
    wake: asyncio.Event | None = None, most_s: float = MOST_PAUSE_S,
) -> None:  # fmt: skip
    """Do `work` until `stop` is set: at once again while it answers True, after a pause (or when woken) otherwise.

    What it raises is logged as `loop_failed` and tried again, ever more slowly, after `most_s` at most: one loop's trouble is not
    the process's, but from the second time on `health` says so.
    """
    failures = 0
    while not stop.is_set():
        health.beat(name)
        pause = idle_s
        try:
            again = await work()
            failures = 0
            health.fine(name)
            if again:
                continue
        except Exception as error:
            failures += 1
            pause = pause_s(failures, base_s=max(idle_s, 0.1), most_s=most_s)
            log.error("loop_failed", loop=name, error=type(error).__name__, detail=str(error)[:500], failures=failures)
            if failures > 1:
                health.trouble(name, f"fails again and again: {type(error).__name__}")
        await pause_of(pause, stop, *([wake] if wake else []))
        if wake is not None:
            wake.clear()
    health.end(name)


def _settle_memory() -> None:
    """What was built stays, and work makes almost no cycles: looking for them took a fifth of a worker's time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


async def serve(service: Service, stopping: asyncio.Event) -> None:
    """Start, run and drain. A loop that fails stops the process: the supervisor starts a clean one."""
    config = uvicorn.Config(
        service.app,
        host=service.host,
        port=service.port,
        http=service.http,
        timeout_keep_alive=service.keep_alive_s,
        loop="uvloop",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        log_level="error",
        timeout_graceful_shutdown=5,
        backlog=2048,
    )
    server = _Server(config)
    stops = [asyncio.Event() for _ in service.loops]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(item.run(stop), name=item.name)
                for item, stop in zip(service.loops, stops, strict=True)
            ]
            serving = group.create_task(server.serve(), name="http")
            log.info("service_started", port=service.port)
            await _first(stopping, [*tasks, serving])
            server.should_exit = True
            await serving
            for task, stop in reversed(list(zip(tasks, stops, strict=True))):
                stop.set()
                if not (await asyncio.wait([task], timeout=DRAIN_S))[0]:
                    log.error("loop_abandoned", loop=task.get_name())
                    task.cancel()
    finally:
        log.info("service_stopped")


async def _first(stopping: asyncio.Event, tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for the signal, or for any task to end."""
    signalled = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([signalled, *tasks], return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
