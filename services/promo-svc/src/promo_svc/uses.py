"""Which coupons have no use left, asked of the database as often as the rules are, whatever version of them a cart is by."""

from __future__ import annotations

import asyncio

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


class UsedUp:
    """The ids of rules whose `uses_total` is reached, in `rules`. One that is published no more stays what it was, for carts that
    are by a version that has it."""

    def __init__(self, db: Database, snapshot: Snapshot[Published], now: Now, health: Health) -> None:
        self._db, self._snapshot, self._now, self._health = db, snapshot, now, health
        self.rules: frozenset[int] = frozenset()

    async def look(self) -> None:
        """Ask once."""
        published = self._snapshot.value.rules.rules
        limits = {rule.id: rule.uses_total for rule in published if rule.coupon and rule.uses_total}
        found: set[int] = set()
        if limits:
            async with self._db.tx() as tx:
                rows = await tx.fetch(USED_UP, list(limits), list(limits.values()), await self._now(tx))
            found = {row["rule_id"] for row in rows}
        self.rules = frozenset(found | (self.rules - {rule.id for rule in published}))

    async def run(self, stop: asyncio.Event) -> None:
        """Follow them until `stop` is set; while the database is away, what was known last counts."""

        async def work() -> bool:
            await self.look()
            return False

        await repeat(work, stop, name="postgres coupon uses", idle_s=POLL_S, health=self._health, most_s=FOLLOW_S)
