"""docs/telemetry.md lists every metric and log event the code may emit, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = "\n".join(p.read_text() for base in ("packages", "services") for p in (ROOT / base).rglob("src/**/*.py"))
TEXT = (ROOT / "docs" / "telemetry.md").read_text().split("# What to do")[0]


class TestTelemetry:
    def test_every_metric_is_documented_and_every_documented_one_exists(self) -> None:
        made = set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"([a-z_]+)"', CODE))
        assert made == set(re.findall(r"^\| `([a-z_]+)`", TEXT, re.MULTILINE))

    def test_every_log_event_is_documented_and_every_documented_one_exists(self) -> None:
        made = set(re.findall(r'log\.(?:info|warning|error)\(\s*"([a-z_]+)"', CODE))
        assert made == set(re.findall(r"`([a-z_]+)`", TEXT.split("Log events")[1]))
