"""python -m devstack: everything on this machine, until Ctrl-C. What the environment provides is used, not started."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiokafka.errors import KafkaError
from chassis.bus import ensure_topics
from contracts import topics

from devstack import install, kafka, varnish
from devstack.claim import Claim, Runs
from devstack.kafka import Kafka
from devstack.process import ENDS, Child, StartFailed, bindable, direct
from devstack.servers import Postgres, Valkey
from devstack.shop.seed import seed
from devstack.stack import Secrets, Stack
from devstack.varnish import Varnish

STATE = Path(".run").resolve()
# Who wants a port that people must know, the setting that changes it, and what it is otherwise.
PORTS = (("gateway", "PORT", 8100), ("example shop", "SHOP_PORT", 8080))
NO_KAFKA = "No Kafka ({reason}): the collector hands events to segment-svc directly"
NO_EDGE = (
    "No Varnish ({reason}; as root on Debian it is installed): the shop asks the gateway, there are no hits to see"
)
LOOK_S, SHOP_S = 1.0, 20


asked: list[bool] = []  # a signal came


def interruptible() -> None:
    """The first of these signals is a KeyboardInterrupt, and what it starts is not disturbed by the next.

    Set by hand: a shell without job control has its background commands ignore SIGINT. A SIGHUP that is ignored is
    somebody's nohup.
    """
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    wanted = [sig for sig in ENDS if sig is not signal.SIGHUP or not nohup]

    def once(*_: object) -> None:
        asked.append(True)
        for sig in wanted:
            signal.signal(sig, signal.SIG_IGN)
        os.write(1, b"\nStopping\n")
        raise KeyboardInterrupt

    for sig in wanted:
        signal.signal(sig, once)


def heard() -> None:
    """KeyboardInterrupt once a signal has come: what it raised is lost where it came into a destructor or a callback."""
    if asked:
        raise KeyboardInterrupt


def ports() -> list[int]:
    """The gateway's and the shop's. Raises StartFailed, before anything is started, for one that cannot be had."""
    found: list[int] = []
    for who, setting, otherwise in PORTS:
        text = os.environ.get(setting) or str(otherwise)
        if not text.isdecimal() or not 0 < int(text) < 65_536:
            raise StartFailed(f"{setting} is a port from 1 to 65535, not {text!r}")
        port = int(text)
        hint = f"give the {who} another one, as in {setting}={port + 10 if port < 65_000 else port - 10} make run"
        if port in found:
            raise StartFailed(f"the {who} cannot have port {port} too: {hint}")
        if not bindable(port):
            raise StartFailed(
                f"port {port}, which the {who} wants, is in use by another program or not ours to use: {hint}"
            )
        found.append(port)
    return found


@dataclass(slots=True)
class Run:
    """What is being started, with its files in `state`; `ending` ends it in reverse."""

    ending: ExitStack
    state: Path
    servers: list[Postgres | Valkey | Kafka] = field(default_factory=list)

    def served(self, server: Postgres | Valkey | Kafka) -> Any:
        """Start a server that keeps its port for life, so that it can be started again under its users."""
        self.servers.append(server)
        return self.started(server)

    def started(self, server: Any) -> Any:
        """Start it; whatever came of that is stopped in the end."""
        heard()
        self.ending.callback(server.stop)
        server.start()
        heard()
        return server

    def bus(self) -> str:
        """Kafka's address; nothing without one."""
        bootstrap = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
        if not bootstrap and (missing := kafka.available()):
            print(NO_KAFKA.format(reason=missing), flush=True)
            return ""
        bootstrap = bootstrap or self.served(Kafka(self.state)).bootstrap
        try:
            asyncio.run(ensure_topics(bootstrap, topics.SHAPES))
        except KafkaError as error:
            raise StartFailed(f"Kafka at {bootstrap} cannot be used: {error}") from None
        return bootstrap

    def edge(self) -> Varnish | None:
        """Varnish, without a gateway yet."""
        if varnish.available():
            install.packages(varnish.PACKAGES)
        if missing := varnish.available():
            print(NO_EDGE.format(reason=missing), flush=True)
            return None
        edge: Varnish = self.started(Varnish(self.state, Secrets.of(self.state).edge_keys()))
        return edge

    def shop(self, stack: Stack, port: int) -> None:
        """The example shop's server."""
        known = stack.secrets
        values = {
            "GATEWAY": stack.url, "EDGE": stack.edges[0] if stack.edges else "", "PORT": str(port),
            "PUBLISHABLE": known.publishable, "SECRET": known.secret, "JWT": known.jwt, "SESSION": known.session,
            "FRONT": known.front,
        }  # fmt: skip
        env = {f"STOREFRONT_{name}": value for name, value in values.items()}
        child = Child(
            "The example shop", [sys.executable, "-m", "devstack.storefront"], self.state / "storefront.log", env=env
        )
        self.started(child)
        child.wait_ready(port, seconds=SHOP_S)


def again(running: Run, stack: Stack) -> Iterator[Child]:
    """Start again what ended by itself; servers first, each answered before it is started. Raises StartFailed."""
    for server in running.servers:
        if server.child is not None and server.child.ended:
            yield server.child
            server.start()
    yield from stack.mend()


def wait(running: Run, stack: Stack) -> None:
    """Until a signal: what ended is started again."""
    told = ""
    while True:
        time.sleep(LOOK_S)
        heard()
        try:
            for child in again(running, stack):
                told_of = f"{child.name} ended {child.how} and is started again; its log is {child.log}"
                print(told_of, file=sys.stderr, flush=True)
        except StartFailed as error:
            if str(error) != told:
                told = str(error)
                print(told, file=sys.stderr, flush=True)


def run(claim: Claim) -> None:
    """Start everything, say where it is, wait. Ends with KeyboardInterrupt or StartFailed; nothing is left then."""
    began = time.monotonic()
    claim.wait_for_leftovers()
    gateway_port, shop_port = ports()
    with ExitStack() as ending:
        running = Run(ending, STATE)
        database = os.environ.get("DATABASE_URL") or running.served(Postgres(STATE)).url
        redis = os.environ.get("REDIS_URL") or running.served(Valkey(STATE)).url
        bootstrap, edge = running.bus(), running.edge()
        edges = (edge.url,) if edge else ()
        stack = running.started(Stack(STATE, database, redis, bootstrap, edges, gateway_port=gateway_port))
        print(seed(stack), flush=True)
        if edge is not None:
            edge.use(stack.address)
        running.shop(stack, shop_port)
        shop = f"http://localhost:{shop_port}/"
        claim.announce(gateway=stack.url, shop=shop, kafka=bootstrap)
        print(_guide(stack, shop, bootstrap, time.monotonic() - began), flush=True)
        wait(running, stack)


def main() -> int:
    """Run unless it runs already; the exit status says whether that went well."""
    interruptible()
    direct()
    try:
        with closing(Claim(STATE)) as claim:
            run(claim)
    except Runs as other:
        where = other.found.get("shop") or "it is still starting"
        print(f"Footfall runs already: {where} (process {other.found.get('pid')}). Nothing was changed.")
    except KeyboardInterrupt:
        print("Stopped", flush=True)
    except (StartFailed, OSError, httpx.HTTPError) as error:
        print(f"Footfall could not start: {error}", file=sys.stderr)
        return 1
    return 0


def _guide(stack: Stack, shop: str, bootstrap: str, seconds: float) -> str:
    return f"""
Footfall is up ({seconds:.1f} s).
  shop      {shop}
  gateway   {stack.url}   (/openapi.json describes it)
  edge      {stack.edges[0] if stack.edges else "none"}
  Kafka     {bootstrap or "none"}
In another terminal: make tour, make keys    Here: Ctrl-C stops everything; the data stays in .run"""


if __name__ == "__main__":
    sys.exit(main())
