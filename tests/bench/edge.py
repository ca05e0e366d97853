"""Hits per CPU-second of Varnish with our configuration, against the same without its second half: the cookie is checked, and
everybody gets the base. Visitors with 12, 60 and 200 codes, of which at least one of the three matters to the page."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from devstack.process import free_port
from devstack.stack import Secrets
from devstack.varnish import VCL, Varnish
from gateway.domain.identity import CONTEXT, VISITOR, context_cookie, visitor_cookie
from gateway.domain.signing import Ring

from tests.bench.measure import Server, ratio, rounds, wrk

RELEVANT, VISITORS, GOAL = (3, 9, 20), 400, 0.75
NARROW = re.compile(r"^sub narrow \{.*?^\}", re.DOTALL | re.MULTILINE)


def _cookies(known: Secrets, count: int) -> list[str]:
    """Of visitors in so many segments, in contexts that say so."""
    rng, found = random.Random(7), []
    visitors, contexts = Ring(f"1:{known.visitor}"), Ring(f"1:{known.context}")
    for _ in range(VISITORS):
        mine = [code for code in RELEVANT if rng.random() < 0.5] or [RELEVANT[0]]
        mine += rng.sample(range(100, 1000), count - len(mine))
        _, visitor = visitor_cookie(visitors, rng.randbytes(16))
        codes = "." + "".join(f"s{code}." for code in mine)
        found.append(
            f"{VISITOR}={visitor}; {CONTEXT}={context_cookie(contexts, codes, int(time.time()) + 3600, visitor)}"
        )
    return found


def _script(path: Path, cookies: list[str]) -> Path:
    listed = ",".join(f'"{cookie}"' for cookie in cookies)
    path.write_text(
        f"local cookies = {{{listed}}}\nlocal n = 0\nrequest = function()\n  n = n % #cookies + 1\n"
        '  return wrk.format("GET", "/v1/decisions?slots=x", {["cookie"] = cookies[n], ["x-api-key"] = "k"})\nend\n'
    )
    return path


class _Edge:
    """A Varnish on a core of its own."""

    def __init__(self, state: Path, keys: dict[str, str], origin: str, vcl: Path) -> None:
        state.mkdir()
        self.varnish = Varnish(state, keys)
        self.varnish.start()
        self.varnish.use(origin, vcl)
        child = self.varnish._child
        assert child is not None
        assert child.popen is not None
        self._processes = [psutil.Process(child.popen.pid), *psutil.Process(child.popen.pid).children(recursive=True)]
        for process in self._processes:
            subprocess.run(["taskset", "-a", "-p", "-c", "0", str(process.pid)], check=True, capture_output=True)

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)


def bench(state: Path, *, count: int = 5, seconds: int = 3) -> dict[str, Any]:
    """A row for each number of codes."""
    known, port = Secrets.of(state), free_port()
    options = ["--no-access-log", "--lifespan", "off", "--log-level", "warning", "--port", str(port)]
    origin = Server([sys.executable, "-m", "uvicorn", "tests.bench.edge_app:app", *options], port, {}, core="1")
    alone = state / "alone.vcl"
    text, replaced = NARROW.subn("sub narrow { }", VCL.read_text())
    assert replaced == 1
    alone.write_text(text)
    edges = {
        name: _Edge(state / name, known.edge_keys(), f"127.0.0.1:{port}", vcl)
        for name, vcl in (("ours", VCL), ("alone", alone))
    }
    bad = [0]

    def measuring(edge: _Edge, script: Path) -> Callable[[], float]:
        def measure() -> float:
            before = edge.cpu_s()
            done, failed = wrk(edge.varnish.url, script, seconds=seconds, connections=32)
            bad[0] += failed
            return done / (edge.cpu_s() - before)

        return measure

    found: dict[str, Any] = {}
    try:
        for codes in (12, 60, 200):
            script = _script(state / f"edge{codes}.lua", _cookies(known, codes))
            variants = {name: measuring(edge, script) for name, edge in edges.items()}
            rounds(variants, 1)  # every copy is fetched
            rates = rounds(variants, count)
            middle, low, high = ratio(rates, "ours", "alone")
            row = {"ratio": middle, "low": low, "high": high, "goal": GOAL, "bad": bad[0], "hits_per_cpu_s": rates}
            found[f"edge, {codes} codes / cookie check alone"] = row
    finally:
        for edge in edges.values():
            edge.varnish.stop()
        origin.stop()
    return found
