"""What flows are given. Built once, by app.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chassis.beside import Beside
from chassis.clock import Clock
from chassis.db import Database
from chassis.health import Health
from chassis.outbox import Relay
from chassis.reached import Reached
from contracts.codec import Codec

if TYPE_CHECKING:
    from segment_svc.definitions import RuleBook
    from segment_svc.store import Recent
    from segment_svc.upstreams import Users

MOST_PREVIEWS = 2  # at a time: each looks at many people


@dataclass(frozen=True, slots=True)
class Deps:
    """The adapters of this service; `users` asks the other services where a segment is in use, `recent` is the worker's.
    Conditions of merchants are run beside the loop (`trying`). `ahead` has the head go on after what readers were told, as far as
    anybody says what that is: before a save, so that it has no number under which they know something else."""

    db: Database
    clock: Clock
    rulebook: RuleBook
    relay: Relay
    codec: Codec
    users: Users
    recent: Recent
    health: Health
    trying: Beside
    reached: Reached
    ahead: Callable[[], Awaitable[object]]
    previews: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_PREVIEWS))
