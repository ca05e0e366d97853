"""Decisions: 10,000 visitors, 200 segments, 200 blocks, distinct audiences, verified cookies, real Valkey; against raw ASGI.

Repeat visitors, first visits, and repeat visitors of whom 5 % are written meanwhile; and how long it takes
until the gateway answers by what was written.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
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

VISITORS, NEWCOMERS, WRITTEN = 10_000, 40_000, 0.05
QUERY = "/v1/decisions?slots=" + ",".join(f"slot{i}" for i in range(SLOTS))
GOALS = {"repeat": 1.5, "first": 1.0, "written": 1.5}
Document = tuple[str, bytes]


def _documents() -> list[bytes]:
    """Those of all visitors, each with an audience of its own."""
    rng, found = random.Random(3), []
    for _ in range(VISITORS):
        bits = sum(1 << s for s in rng.sample(range(SEGMENTS), 12)).to_bytes(25, "little")
        found.append(audience.encode(audience.Audience(audience.FORMAT, 0, bits, (), "", 0, None, False)))
    return found


def _fill(url: str, ring: Ring, documents: list[bytes], seed: int, count: int) -> tuple[list[str], list[Document]]:
    """So many people, each with one of the documents; answers their cookies, and what is stored of them."""
    rng, client, cookies, stored = random.Random(seed), redis.Redis.from_url(url), [], []
    pipe = client.pipeline(transaction=False)
    for n in range(count):
        name, cookie = visitor_cookie(ring, rng.randbytes(16))
        stored.append((f"aud:v:{name}", versioned(1, documents[n % len(documents)])))
        pipe.set(*stored[-1])
        cookies.append(cookie)
    pipe.mset({"ver:segment": 1, "ver:content": 1, "ver:promo": 1, "aud:complete": "0 ?"})
    pipe.execute()
    client.close()
    return cookies, stored


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


@contextmanager
def _writing(url: str, documents: list[Document], per_second: float) -> Iterator[None]:
    """Somebody's document is written anew, so many times a second."""
    client, over, rng = redis.Redis.from_url(url), threading.Event(), random.Random(9)

    def write() -> None:
        while not over.wait(0.01):
            pipe = client.pipeline(transaction=False)
            for key, value in rng.sample(documents, max(1, int(per_second / 100))):
                pipe.set(key, value)
            pipe.execute()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        client.close()


async def _seen(gateway: str, url: str, key: str, cookie: str, document: Document, others: list[bytes]) -> list[float]:
    """Milliseconds from the acknowledgement of a write to the first answer by it."""
    client, found = redis.Redis.from_url(url), []
    async with httpx.AsyncClient(base_url=gateway, headers={"x-api-key": key, "cookie": f"{VISITOR}={cookie}"}) as http:
        before = (await http.get(QUERY)).json()["decision_id"]
        for n in range(500):
            client.set(document[0], versioned(2 + n, others[(n + 1) % len(others)]))  # the first one is there
            written_s = time.perf_counter()
            while (now := (await http.get(QUERY)).json()["decision_id"]) == before:
                pass
            found.append((time.perf_counter() - written_s) * 1000)
            before = now
    client.close()
    return found


def _row(found: dict[str, list[float]], name: str, bad: int) -> dict[str, Any]:
    middle, low, high = ratio(found, name, "raw")
    figures = {"requests_per_cpu_s": found[name], "raw_per_cpu_s": found["raw"]}
    return {"ratio": middle, "low": low, "high": high, "goal": GOALS[name], "bad": bad, **figures}


def bench(state: Path, *, count: int = 5, seconds: int = 4) -> dict[str, Any]:
    """Requests per CPU-second of the server process, ours against raw, and their ratio, row by row."""
    known, valkey, documents = Secrets.of(state), Valkey(state), _documents()
    ring = Ring(f"1:{known.visitor}")
    valkey.start()
    valkey.pin(1)
    port, raw_port, services_port = free_port(), free_port(), free_port()
    services = Server(_uvicorn("services_app", services_port), services_port, {}, core="1")
    url, unlimited = f"http://127.0.0.1:{services_port}", str(10**12)
    values = {
        "REDIS_URL": valkey.url, "SERVICE_SECRET": known.service, **known.rings(), "KEYS": known.keys(),
        "SEGMENT_URL": url, "CONTENT_URL": url, "PROMO_URL": url, "PORT": str(port), "PERSON_PER_MINUTE": unlimited,
        "BLOCK_PER_MINUTE": unlimited, "KEY_PER_MINUTE": unlimited,
    }  # fmt: skip
    cookies, stored = _fill(valkey.url, ring, documents, 3, VISITORS)
    script = _script(state / "decisions.lua", cookies, known.publishable)
    ours = Server([sys.executable, "-m", "gateway"], port, {f"GATEWAY_{k}": v for k, v in values.items()})
    request = urllib.request.Request(f"http://127.0.0.1:{port}{QUERY}", headers={"x-api-key": known.publishable})
    size = len(urllib.request.urlopen(request).read())
    raw = Server(_uvicorn("raw_app", raw_port), raw_port, {"RAW_BYTES": str(size)})
    bad, rate, seeds = [0], [0.0], iter(range(1000, 2000))

    def measure(server: Server, script: Path, seconds: float = seconds) -> float:
        before = server.cpu_s()
        done, failed = wrk(f"http://127.0.0.1:{server.port}", script, seconds=int(seconds))
        bad[0] += failed
        rate[0] = done / seconds
        return done / (server.cpu_s() - before)

    def first() -> float:
        """Each comes once: so many that a second is over before the last one came."""
        newcomers, _ = _fill(valkey.url, ring, documents, next(seeds), NEWCOMERS)
        return measure(ours, _script(state / "first.lua", newcomers, known.publishable), 1)

    def written() -> float:
        with _writing(valkey.url, stored, rate[0] * WRITTEN):
            return measure(ours, script)

    variants: dict[str, Callable[[], float]] = {
        "raw": lambda: measure(raw, script), "repeat": lambda: measure(ours, script), "written": written, "first": first,
    }  # fmt: skip
    try:
        for _ in range(40):  # every answer is made once; the rounds measure what follows
            if wrk(f"http://127.0.0.1:{port}", script, seconds=4)[0] > 4 * VISITORS:
                break
        found = rounds(variants, count)
        waits = asyncio.run(
            _seen(f"http://127.0.0.1:{port}", valkey.url, known.publishable, cookies[0], stored[0], documents[:7])
        )
    finally:
        for server in (ours, raw, services):
            server.stop()
        valkey.stop()
    waits.sort()
    return {
        "decisions, repeat visitors / raw ASGI": _row(found, "repeat", bad[0]),
        "decisions, first visits / raw ASGI": _row(found, "first", bad[0]),
        "decisions, 5 % written / raw ASGI": _row(found, "written", bad[0]),
        "membership written -> answered, ms": {"p50": statistics.median(waits), "p99": waits[int(len(waits) * 0.99)]},
    }
