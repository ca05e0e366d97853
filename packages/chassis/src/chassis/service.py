"""How a process lives: start what it needs, run its loops beside HTTP, and drain in reverse on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import threading
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


# How long a loop has to end, and a process from when it is to end; the most that is waited before the next try: of what follows
# others' news, which is to be known as soon as they are back, and of all else.
DRAIN_S, END_S, FOLLOW_S, MOST_PAUSE_S = 15.0, 30.0, 1.0, 10.0
FILES = 16_384  # shells and supervisors often begin with 1,024, which one address can take
Build = Callable[[Any], AbstractAsyncContextManager[Service]]


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the process decides when to drain."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave signals alone."""
        yield


def run(build: Build, settings: HasAddress) -> None:
    """Run a service until SIGTERM or SIGINT; returns when everything is drained. Whatever holds that up, the process ends."""
    uvloop.run(_main(build, settings))


def most_files() -> int:
    """How many files, sockets among them, this process may have open: as many as it was allowed to allow itself, up to FILES."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


async def _main(build: Build, settings: HasAddress) -> None:
    most_files()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stopping.set)
    ending = asyncio.create_task(_end_of(stopping), name="end")
    async with build(settings) as service:
        telemetry.configure(service.name)
        _settle_memory()
        if settings.metrics_port:
            start_http_server(settings.metrics_port, addr=service.host)
        await serve(service, stopping)
    ending.cancel()


async def _end_of(stopping: asyncio.Event) -> None:
    """From a thread: what holds the end up may hold this event loop up."""
    await stopping.wait()
    timer = threading.Timer(END_S, _give_up)
    timer.daemon = True
    timer.start()


def _give_up() -> None:
    log.error("end_abandoned")
    os._exit(1)


async def repeat(
    work: Callable[[], Awaitable[bool]], stop: asyncio.Event, *, name: str, idle_s: float, health: Health,
    wake: asyncio.Event | None = None, most_s: float = MOST_PAUSE_S,
) -> None:  # fmt: skip
    """Do `work` until `stop` is set: at once again while it answers True, after a pause (or when woken) otherwise.

    What it raises is logged as `loop_failed` and tried again, ever more slowly, after `most_s` at most: one loop's trouble is not
    the process's, but from the second time on `health` says so. `name` begins with what the loop leans on, such as `postgres`, so
    that who asks whether the process is ready can let that not count.
    """
    failures = 0
    while not stop.is_set():
        if (
            task := asyncio.current_task()
        ) and task.cancelling():  # lost on its way here, as asyncio.wait_for of 3.11 does
            raise asyncio.CancelledError
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
    """Start, run and drain. A loop that ends has the process end as a signal does: the supervisor starts a clean one.

    Raises what loops failed with, when everything is drained.
    """
    server, failed = _Server(_config(service)), list[Exception]()

    async def watched(work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception as error:
            log.error("loop_ended", loop=name, error=type(error).__name__, detail=str(error)[:500])
            failed.append(error)
        finally:
            stopping.set()

    stops = [asyncio.Event() for _ in service.loops]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(watched(item.run(stop), item.name), name=item.name)
                for item, stop in zip(service.loops, stops, strict=True)
            ]
            serving = group.create_task(watched(server.serve(), "http"), name="http")
            log.info("service_started", port=service.port)
            await stopping.wait()
            server.should_exit = True
            await serving
            for task, stop in reversed(list(zip(tasks, stops, strict=True))):
                stop.set()
                if not (await asyncio.wait([task], timeout=DRAIN_S))[0]:
                    log.error("loop_abandoned", loop=task.get_name())
                    task.cancel()
    finally:
        log.info("service_stopped")
    if failed:
        raise ExceptionGroup("loops failed", failed)


def _config(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
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
