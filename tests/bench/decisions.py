"""Decisions: 10,000 visitors, 200 segments, 200 blocks, distinct audiences, verified cookies, real Valkey; against raw ASGI."""

from __future__ import annotations

import random
import sys
import urllib.request
from pathlib import Path
from typing import Any

import redis
from chassis.cache import versioned
from contracts import audience
from devstack.process import free_port
from devstack.servers import Valkey
from devstack.stack import Secrets
from gateway.domain.identity import VISITOR, visitor_cookie
from gateway.domain.signing import Ring

from tests.bench.measure import Server, ratio, rounds, wrk
from tests.bench.services_app import SEGMENTS, SLOTS

VISITORS = 10_000
QUERY = "/v1/decisions?slots=" + ",".join(f"slot{i}" for i in range(SLOTS))


def _fill(url: str, known: Secrets) -> list[str]:
    """Documents of all visitors, each with an audience of its own; answers their cookies."""
    rng, client, cookies = random.Random(3), redis.Redis.from_url(url), []
    pipe = client.pipeline(transaction=False)
    for _ in range(VISITORS):
        name, cookie = visitor_cookie(Ring(f"1:{known.visitor}"), rng.randbytes(16))
        bits = sum(1 << s for s in rng.sample(range(SEGMENTS), 12))
        document = audience.Audience(audience.FORMAT, 0, bits.to_bytes(25, "little"), [], "", 0, None, False)
        pipe.set(f"aud:v:{name}", versioned(1, audience.encode(document)))
        cookies.append(cookie)
    pipe.mset({"ver:segment": 1, "ver:content": 1, "ver:promo": 1})
    pipe.execute()
    return cookies


def _script(path: Path, cookies: list[str], key: str) -> Path:
    listed = ",".join(f'"{VISITOR}={c}"' for c in cookies)
    path.write_text(
        f"local cookies = {{{listed}}}\nlocal n = 0\nrequest = function()\n  n = n % #cookies + 1\n"
        f'  return wrk.format("GET", "{QUERY}", {{["cookie"] = cookies[n], ["x-api-key"] = "{key}"}})\nend\n'
    )
    return path


def _uvicorn(app: str, port: int) -> list[str]:
    options = ["--port", str(port), "--no-access-log", "--lifespan", "off", "--http", "httptools", "--loop", "uvloop"]
    return [sys.executable, "-m", "uvicorn", f"tests.bench.{app}:app", "--log-level", "warning", *options]


def bench(state: Path, *, count: int = 5, seconds: int = 4) -> dict[str, Any]:
    """Requests per CPU-second of the server process, ours against raw, and their ratio."""
    known, valkey = Secrets.of(state), Valkey(state)
    valkey.start()
    valkey.pin(1)
    port, raw_port, services_port = free_port(), free_port(), free_port()
    services = Server(_uvicorn("services_app", services_port), services_port, {}, core="1")
    url = f"http://127.0.0.1:{services_port}"
    values = {
        "REDIS_URL": valkey.url, "SERVICE_SECRET": known.service, **known.rings(), "KEYS": known.keys(),
        "SEGMENT_URL": url, "CONTENT_URL": url, "PROMO_URL": url, "PORT": str(port),
    }  # fmt: skip
    script = _script(state / "decisions.lua", _fill(valkey.url, known), known.publishable)
    ours = Server([sys.executable, "-m", "gateway"], port, {f"GATEWAY_{k}": v for k, v in values.items()})
    request = urllib.request.Request(f"http://127.0.0.1:{port}{QUERY}", headers={"x-api-key": known.publishable})
    size = len(urllib.request.urlopen(request).read())
    raw = Server(_uvicorn("raw_app", raw_port), raw_port, {"RAW_BYTES": str(size)})
    bad = [0]

    def measure(server: Server) -> float:
        before = server.cpu_s()
        done, failed = wrk(f"http://127.0.0.1:{server.port}", script, seconds=seconds)
        bad[0] += failed
        return done / (server.cpu_s() - before)

    try:
        for _ in range(40):  # every visitor's answer is made once; the rounds measure what follows
            if wrk(f"http://127.0.0.1:{port}", script, seconds=4)[0] > 4 * VISITORS:
                break
        found = rounds({"ours": lambda: measure(ours), "raw": lambda: measure(raw)}, count)
    finally:
        for server in (ours, raw, services):
            server.stop()
        valkey.stop()
    middle, low, high = ratio(found, "ours", "raw")
    return {"ratio": middle, "low": low, "high": high, "goal": 0.65, "bad": bad[0], "requests_per_cpu_s": found}
