"""What flows are given. Built once, by app.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass

from chassis.beside import Beside
from chassis.db import Database, Tx
from chassis.outbox import Relay
from chassis.reached import Reached
from chassis.snapshot import Snapshot

from promo_svc.snapshot import Published
from promo_svc.till import Till

Now = Callable[[Tx], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Deps:
    """The adapters of this service. `now` asks the database what time it is (epoch ms), for replicas must agree on it; `till` is
    for redemptions; `carts` evaluates large carts, `saves` tries what is saved; `used_up` says the ids of used-up rules.
    """

    db: Database
    now: Now
    relay: Relay
    snapshot: Snapshot[Published]
    segment_version: Callable[[], Awaitable[int | None]]
    till: Till
    carts: Beside
    saves: Beside
    reached: Reached
    used_up: Callable[[], Container[int]]
