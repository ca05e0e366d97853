"""The edge, against itself without its second half: the cookie is checked, and everybody gets the base. Nothing is personal then.

Hits per CPU-second, for visitors with 12, 60 and 200 codes, of which at least one of the three matters to the page. And the
hit ratio of a replay: 200 segments, 200 pages, 20,000 visitors, some pages and segments much more usual than others, copies
that live so short that each is fetched several times.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
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
SEGMENTS, PAGES, PEOPLE, ASKS, REPLAY_S, LIFE_S = 200, 200, 20_000, 100_000, 20, 5
NARROW = re.compile(r"^sub narrow \{.*?^\}", re.DOTALL | re.MULTILINE)


def _cookies(known: Secrets, segments: Iterable[Iterable[int]]) -> list[str]:
    """Of visitors in these segments, in contexts that say so."""
    rng, found = random.Random(7), []
    visitors, contexts = Ring(f"1:{known.visitor}"), Ring(f"1:{known.context}")
    for mine in segments:
        _, visitor = visitor_cookie(visitors, rng.randbytes(16))
        codes = "." + "".join(f"s{code}." for code in mine)
        context = context_cookie(contexts, codes, int(time.time()) + 3600, visitor, "k", version=1)
        found.append(f"{VISITOR}={visitor}; {CONTEXT}={context}")
    return found


def _of_many(count: int) -> list[list[int]]:
    """Segments of visitors in so many."""
    rng, found = random.Random(7), []
    for _ in range(VISITORS):
        mine = [code for code in RELEVANT if rng.random() < 0.5] or [RELEVANT[0]]
        found.append(mine + rng.sample(range(100, 1000), count - len(mine)))
    return found


def _usual(rng: random.Random, of: int, count: int) -> list[int]:
    """So many different ones, the first much more often than the last (1 / rank)."""
    ranks = range(1, of + 1)
    return sorted(set(rng.choices([rank - 1 for rank in ranks], [1 / rank for rank in ranks], k=count)))


def _script(path: Path, asks: Iterable[tuple[str, int]]) -> Path:
    """Requests of (cookie, page), again and again."""
    listed = ",".join(f'{{"{cookie}", "{page}"}}' for cookie, page in asks)
    path.write_text(
        f"local asks = {{{listed}}}\nlocal n = 0\nrequest = function()\n  n = n % #asks + 1\n"
        '  return wrk.format("GET", "/v1/decisions?slots=p" .. asks[n][2], '
        '{["cookie"] = asks[n][1], ["x-api-key"] = "k"})\nend\n'
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


class _Rig:
    """Both edges, before one origin whose pages depend on these masks."""

    def __init__(self, state: Path, known: Secrets, masks: list[str], life_s: int) -> None:
        self.port = free_port()
        options = ["--no-access-log", "--lifespan", "off", "--log-level", "warning", "--port", str(self.port)]
        env = {"MASKS": json.dumps(masks), "LIFE_S": str(life_s)}
        argv = [sys.executable, "-m", "uvicorn", "tests.bench.edge_app:app", *options]
        self.origin = Server(argv, self.port, env, core="1")
        alone = state / "alone.vcl"
        text, replaced = NARROW.subn("sub narrow { if (false) { call codes; } }", VCL.read_text())
        assert replaced == 1
        alone.write_text(text)
        kinds = {"ours": VCL, "alone": alone}
        keys, address = known.edge_keys(), f"127.0.0.1:{self.port}"
        self.edges = {name: _Edge(state / f"{name}{self.port}", keys, address, vcl) for name, vcl in kinds.items()}

    def fetched(self) -> int:
        """How often the origin was asked."""
        return int(urllib.request.urlopen(f"http://127.0.0.1:{self.port}/").read())

    def stop(self) -> None:
        """End all."""
        for edge in self.edges.values():
            edge.varnish.stop()
        self.origin.stop()


def _rates(state: Path, known: Secrets, count: int, seconds: int) -> dict[str, Any]:
    rig, bad = _Rig(state, known, ["." + "".join(f"s{code}." for code in RELEVANT)], 3600), [0]

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
            asks = [(cookie, 0) for cookie in _cookies(known, _of_many(codes))]
            script = _script(state / f"edge{codes}.lua", asks)
            variants = {name: measuring(edge, script) for name, edge in rig.edges.items()}
            rounds(variants, 1)  # every copy is fetched
            rates = rounds(variants, count)
            middle, low, high = ratio(rates, "ours", "alone")
            row = {"ratio": middle, "low": low, "high": high, "goal": GOAL, "bad": bad[0], "hits_per_cpu_s": rates}
            found[f"edge, {codes} codes / cookie check alone"] = row
    finally:
        rig.stop()
    return found


def _replay(state: Path, known: Secrets) -> dict[str, Any]:
    rng = random.Random(11)
    masks = ["." + "".join(f"s{code}." for code in _usual(rng, SEGMENTS, rng.randint(0, 4))) for _ in range(PAGES)]
    cookies = _cookies(known, [_usual(rng, SEGMENTS, 16) for _ in range(PEOPLE)])
    pages = rng.choices(range(PAGES), [1 / (n + 1) for n in range(PAGES)], k=ASKS)
    script = _script(state / "replay.lua", [(rng.choice(cookies), page) for page in pages])
    rig, hits = _Rig(state, known, masks, LIFE_S), {}
    try:
        for name, edge in rig.edges.items():
            before = rig.fetched()
            done, failed = wrk(edge.varnish.url, script, seconds=REPLAY_S, connections=32)
            assert not failed
            hits[name] = 100 * (1 - (rig.fetched() - before) / done)
    finally:
        rig.stop()
    return {"ours": hits["ours"], "nothing personal": hits["alone"]}


def bench(state: Path, *, count: int = 5, seconds: int = 3) -> dict[str, Any]:
    """A row for each number of codes, and the replay."""
    known = Secrets.of(state)
    return {**_rates(state, known, count, seconds), "edge, hits of a replay, %": _replay(state, known)}
