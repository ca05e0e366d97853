"""Strict types: one mypy run per member, because every member has its own tests package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    "packages/conditions/src",
    "packages/chassis/src",
    "packages/devstack/src",
    "proto/src/contracts",
    "services/segment-svc/src",
    "services/content-svc/src",
    "services/promo-svc/src",
    "services/gateway/src",
]


def main() -> int:
    """Check every source tree in one go; the exit status is mypy's."""
    return subprocess.run([sys.executable, "-m", "mypy", *SOURCES], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
