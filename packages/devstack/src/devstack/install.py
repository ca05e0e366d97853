"""python -m devstack.install tests|bench: installs what they need from the system, where it may (root on Debian)."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from devstack import browser, front, kafka, varnish

HASTE = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=15", "-o", "Acquire::https::Timeout=15")
BROWSER = Path(__file__).resolve().parents[4] / "requirements" / "browser.txt"


def packages(names: Sequence[str]) -> None:
    """Debian packages; without the right to install them, nothing happens."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    print(f"Installing {' '.join(names)} from the system's packages", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *names]):
        subprocess.run(
            ["apt-get", *HASTE, *argv], check=False, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def _tests() -> int:
    """Say what is missing and cannot be installed; under CI=true that is an error."""
    if varnish.available():
        packages(varnish.PACKAGES)
    if front.available():
        packages(front.PACKAGES)
    if not shutil.which("chromium"):
        packages(browser.PACKAGES)
    if not importlib.util.find_spec("playwright"):
        argv = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*argv, "-r", str(BROWSER)], check=False)
        importlib.invalidate_caches()
    missing = [m for s in (varnish, front, kafka, browser) if (m := s.available())]
    for what in missing:
        print(f"{what}: the suites that need it will not run")
    return 1 if missing and os.environ.get("CI") == "true" else 0


def _bench() -> int:
    """The load generator, and Kafka."""
    if not shutil.which("wrk"):
        packages(["wrk"])
    missing = [m for m in (None if shutil.which("wrk") else "wrk is not installed", kafka.available()) if m]
    for what in missing:
        print(f"{what}: make bench needs it")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(_bench() if "bench" in sys.argv[1:] else _tests())
