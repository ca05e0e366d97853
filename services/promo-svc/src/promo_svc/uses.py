"""Which coupons have no use left, asked of the database as often as the rules are, whatever version of them a cart is by."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Container

from chassis.db import Database
from chassis.health import Health
from chassis.service import FOLLOW_S, repeat
from chassis.snapshot import POLL_S, Snapshot

from promo_svc.deps import Now
from promo_svc.snapshot import Published

# A hold that ran out counts no more, though nobody has reclaimed it: one that is behind those too many is a use to be had.
USED_UP = """SELECT u.rule_id FROM unnest($1::int[], $2::int[]) AS limited (rule_id, most) JOIN coupon_use u USING (rule_id)
    WHERE u.used >= most AND NOT EXISTS (
        SELECT 1 FROM redemption r WHERE r.rule_id = u.rule_id AND r.status = 'reserved' AND r.expires_at <= $3
        OFFSET u.used - most)"""


ASK_S, LATELY_S = 1.0, 2.0


class UsedUp:
    """The ids of rules whose `uses_total` is reached, in `rules`; while nobody says so (LATELY_S), of all that have one. What
    is published no more stays what it was, for carts that are by a version that has it."""

    def __init__(self, db: Database, snapshot: Snapshot[Published], now: Now, health: Health) -> None:
        self._db, self._snapshot, self._now, self._health = db, snapshot, now, health
        self._used_up: frozenset[int] = frozenset()
        self._asked_s = -math.inf

    @property
    def rules(self) -> Container[int]:
        """See UsedUp."""
        lately = time.monotonic() - self._asked_s < LATELY_S
        return self._used_up if lately else self._used_up.union(self._limits())

    def _limits(self) -> dict[int, int]:
        return {r.id: r.uses_total for r in self._snapshot.value.rules.rules if r.coupon and r.uses_total}

    async def look(self) -> None:
        """Ask once. Raises TimeoutError, and what the database raises."""
        began_s, limits, found = time.monotonic(), self._limits(), set[int]()
        if limits:
            async with asyncio.timeout(ASK_S), self._db.tx() as tx:
                rows = await tx.fetch(USED_UP, list(limits), list(limits.values()), await self._now(tx))
            found = {row["rule_id"] for row in rows}
        published = {rule.id for rule in self._snapshot.value.rules.rules}
        self._used_up, self._asked_s = frozenset(found | (self._used_up - published)), began_s

    async def run(self, stop: asyncio.Event) -> None:
        """Follow them until `stop` is set."""

        async def work() -> bool:
            await self.look()
            return False

        await repeat(work, stop, name="postgres coupon uses", idle_s=POLL_S, health=self._health, most_s=FOLLOW_S)
