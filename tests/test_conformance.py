"""Our own case files pass, through the domain and (with servers) through the real flows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CASES = sorted((ROOT / "tests" / "cases").rglob("*.json"))


def run(path: Path, *flags: str) -> str:
    argv = [sys.executable, str(ROOT / "tools/conformance.py"), str(path), *flags]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class TestCases:
    @pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
    def test_the_domain_passes(self, path: Path) -> None:
        assert ", 0 failed" in run(path, "--pure")

    @pytest.mark.servers
    @pytest.mark.parametrize("path", [p for p in CASES if p.parent.name == "segments"], ids=lambda p: p.stem)
    def test_the_real_flows_pass(self, path: Path) -> None:
        assert ", 0 failed" in run(path)
