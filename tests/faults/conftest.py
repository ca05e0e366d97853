"""Servers of their own for these tests, which kill them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from devstack import kafka
from devstack.servers import Postgres, Valkey
from devstack.testing import need

sys.path.insert(0, str(Path(__file__).parent))
from rig import Servers


@pytest.fixture(scope="session")
def servers(state: Path) -> Iterator[Servers]:
    """PostgreSQL, Valkey and Kafka that nobody else uses."""
    need(kafka.available())
    home = state / "faults"
    home.mkdir(mode=0o755)
    made = Servers(Postgres(home), Valkey(home), kafka.Kafka(home), home)
    try:
        for server in (made.postgres, made.valkey, made.kafka):
            server.start()
        yield made
    finally:
        for server in (made.kafka, made.valkey, made.postgres):
            server.stop()
