"""What flows are given. Built once, by app.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chassis.db import Database
from chassis.outbox import Relay
from chassis.reached import Reached
from chassis.snapshot import Snapshot

from content_svc.snapshot import Published


@dataclass(frozen=True, slots=True)
class Deps:
    """The adapters of this service."""

    db: Database
    relay: Relay
    snapshot: Snapshot[Published]
    segment_version: Callable[[], Awaitable[int | None]]
    reached: Reached
