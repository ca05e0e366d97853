"""Processes pinned to a core, their CPU time, and medians of alternating rounds."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from devstack.process import listens


class Server:
    """A process pinned to a core that listens on a port."""

    def __init__(self, argv: Sequence[str], port: int, env: Mapping[str, str], *, core: str = "0") -> None:
        self.port = port
        self._popen = subprocess.Popen(
            ["taskset", "-c", core, *argv], env={**os.environ, **env}, stdin=subprocess.DEVNULL
        )
        until = time.monotonic() + 30
        while not listens(self._popen.pid, port):
            if time.monotonic() > until or self._popen.poll() is not None:
                raise RuntimeError(f"{argv} did not start")
            time.sleep(0.05)

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        times = psutil.Process(self._popen.pid).cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        """End it."""
        self._popen.terminate()
        self._popen.wait(20)


def wrk(url: str, script: Path, *, seconds: int, connections: int = 64) -> tuple[int, int]:
    """Load from core 1; answers (requests, answers that were not 2xx)."""
    argv = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
    text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    requests = next(int(line.split()[0]) for line in text.splitlines() if "requests in" in line)
    bad = next((int(line.split()[-1]) for line in text.splitlines() if "Non-2xx" in line), 0)
    return requests, bad


def rounds(variants: Mapping[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Measure every variant once per round, in turn."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(count):
        for name, measure in variants.items():
            found[name].append(measure())
    return found


def ratio(found: Mapping[str, Sequence[float]], ours: str, baseline: str) -> tuple[float, float, float]:
    """Median, lowest and highest of the round-by-round ratios."""
    each = [a / b for a, b in zip(found[ours], found[baseline], strict=True)]
    return statistics.median(each), min(each), max(each)
