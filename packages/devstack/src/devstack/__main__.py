"""python -m devstack: everything on this machine, until Ctrl-C. What the environment provides is used, not started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from chassis.bus import ensure_topics
from contracts import topics

from devstack import kafka
from devstack.kafka import Kafka
from devstack.process import StartFailed
from devstack.servers import Postgres, Valkey
from devstack.shop.seed import seed
from devstack.stack import Stack
from devstack.storefront import serve

STATE = Path(".run").resolve()
GATEWAY_PORT, SHOP_PORT = 8100, 8080
NO_KAFKA = "No Kafka ({reason}): the collector hands events to segment-svc directly"


def _started(stack: ExitStack, server: Any) -> Any:
    server.start()
    stack.callback(server.stop)
    return server


def _servers(stack: ExitStack) -> tuple[str, str, str]:
    """(database, Redis, Kafka bootstrap or nothing), started where the environment names none."""
    database = os.environ.get("DATABASE_URL") or _started(stack, Postgres(STATE)).url
    redis = os.environ.get("REDIS_URL") or _started(stack, Valkey(STATE)).url
    bootstrap = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
    missing = kafka.available()
    if not bootstrap and missing is None:
        bootstrap = _started(stack, Kafka(STATE)).bootstrap
    elif not bootstrap:
        print(NO_KAFKA.format(reason=missing), flush=True)
    if bootstrap:
        asyncio.run(ensure_topics(bootstrap, topics.SHAPES))
    return database, redis, bootstrap


def main() -> int:
    """Start, print where everything is, wait for a signal, stop."""
    began = time.monotonic()
    for sig in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.default_int_handler)
    STATE.mkdir(exist_ok=True)
    with ExitStack() as stack:
        try:
            database, redis, bootstrap = _servers(stack)
            made = Stack(STATE, database, redis, bootstrap, gateway_port=int(os.environ.get("PORT", GATEWAY_PORT)))
            stack.callback(made.stop)
            made.start()
            print(seed(made), flush=True)
            shop = serve(SHOP_PORT, made.url, publishable=made.secrets.publishable, secret=made.secrets.secret)
            stack.enter_context(closing(shop.socket))
            stack.callback(shop.shutdown)
        except (StartFailed, OSError) as error:
            print(f"Footfall could not start: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        (STATE / "stack.json").write_text(json.dumps({"gateway": made.url, "kafka": bootstrap}))
        print(_guide(made, bootstrap, time.monotonic() - began), flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("Stopping", flush=True)
    return 0


def _guide(stack: Stack, bootstrap: str, seconds: float) -> str:
    return f"""
Footfall is up ({seconds:.1f} s).
  shop      http://localhost:{SHOP_PORT}/
  gateway   {stack.url}   (/openapi.json describes it)
  Kafka     {bootstrap or "none"}
  admin key {stack.secrets.admin}
In another terminal: make tour    Here: Ctrl-C stops everything; the data stays in .run"""


if __name__ == "__main__":
    sys.exit(main())
