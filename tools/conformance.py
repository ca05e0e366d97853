"""python tools/conformance.py FILE [--pure] [--strict]: runs a file of segment or promotion cases and prints what passed.

Segment cases run through the real flows on a database of their own (--pure: the domain alone); promotion cases through
the evaluator. The exit status is 1 when a case failed, and with --strict when one is not supported.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from chassis.clock import ManualClock  # noqa: E402
from chassis.migrate import upgrade  # noqa: E402
from devstack.servers import Postgres, Valkey  # noqa: E402
from segment_svc.app import SCHEMA, adapters  # noqa: E402
from segment_svc.settings import Settings  # noqa: E402

from tests.conformance import promotions, segments  # noqa: E402
from tests.conformance.report import Report  # noqa: E402


async def on_database(cases: list[dict[str, Any]]) -> Report:
    """One database per case, copied from a migrated one."""
    with tempfile.TemporaryDirectory(prefix="footfall-cases-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - PostgreSQL runs as another user
        postgres, valkey = Postgres(Path(folder)), Valkey(Path(folder))
        postgres.start()
        valkey.start()
        try:
            admin = await asyncpg.connect(postgres.url)
            await admin.execute("CREATE DATABASE template_case")
            base = postgres.url.removesuffix("postgres")
            await upgrade(f"{base}template_case", schema=SCHEMA, package="segment_svc")

            @asynccontextmanager
            async def driver(raw: dict[str, Any]) -> AsyncIterator[segments.Driver]:
                name, clock = f"case{uuid.uuid4().hex[:10]}", ManualClock(0)
                await admin.execute(f"CREATE DATABASE {name} TEMPLATE template_case")
                zone = raw.get("timezone") or "UTC"
                settings = Settings(f"{base}{name}", valkey.url, "s" * 32, time_zone=zone)
                async with adapters(settings, clock=clock) as built:
                    yield segments.Database(built.deps, clock)
                await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

            return await segments.run(cases, driver)
        finally:
            valkey.stop()
            postgres.stop()


def main(path: str, flags: list[str]) -> int:
    """Run a file; see the module."""
    raw = json.loads(Path(path).read_text())
    cases = raw["cases"] if isinstance(raw, dict) else raw
    if cases and "steps" in cases[0]:
        report = asyncio.run(segments.run(cases, segments.pure) if "--pure" in flags else on_database(cases))
    else:
        report = promotions.run(cases)
    print(report.text())
    wrong = report.totals["failed"] + (report.totals["unsupported"] if "--strict" in flags else 0)
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: make conformance CASES=path/to/file.json")
    sys.exit(main(sys.argv[1], sys.argv[2:]))
