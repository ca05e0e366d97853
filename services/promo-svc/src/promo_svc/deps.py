"""What flows are given. Built once, by app.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chassis.beside import Beside
from chassis.clock import Clock
from chassis.db import Database
from chassis.outbox import Relay
from chassis.snapshot import Snapshot

from promo_svc.snapshot import Published


@dataclass(frozen=True, slots=True)
class Deps:
    """The adapters of this service; what takes long is done beside the loop: large `carts`, and trying what is saved."""

    db: Database
    clock: Clock
    relay: Relay
    snapshot: Snapshot[Published]
    segment_version: Callable[[], Awaitable[int | None]]
    carts: Beside
    saves: Beside
