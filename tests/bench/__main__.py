"""make bench: every row with its baseline in one run; the table on the screen, the figures in bench-results/."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import decisions, edge, freshness, ingest

RESULTS = Path("bench-results")


def main() -> int:
    """Measure, print, write."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="footfall-bench-", ignore_cleanup_errors=True) as folder:
        state = Path(folder)
        state.chmod(0o755)
        found |= shown(decisions.bench(state, count=rounds))
        found |= shown(edge.bench(state, count=rounds))
        found |= shown(asyncio.run(ingest.bench(state, count=rounds)))
        half = median(found["ingest, one worker"]["events_per_s"]["ours"]) / 2
        found |= shown({"event produced -> decision, ms": asyncio.run(freshness.bench(state, rate=half))})
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(found, indent=1))
    return 0


def shown(rows: dict[str, Any]) -> dict[str, Any]:
    """Say what was measured as soon as it is."""
    for name, row in rows.items():
        if "ratio" in row:
            said = f"{row['ratio']:.2f}  ({row['low']:.2f}-{row['high']:.2f})  to reach {row['goal']}"
        else:
            said = ", ".join(f"{what} {value:.1f}" for what, value in row.items())
        print(f"{name:40} {said}", flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
