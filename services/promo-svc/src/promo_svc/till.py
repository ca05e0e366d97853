"""Where shoppers redeem: in connections of their own, so that neither a merchant nor a gateway waits behind them, and in places
of each rule and website, so that who waits for one coupon keeps no other from being redeemed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.db import Database, Patience, Tx
from chassis.turns import Turns

CONNECTIONS = 8
OF_A_RULE = 2  # who has its row locked, and who is next
OF_A_WEBSITE = 3
WAITING, TURN_S = 250, 1.5
# A gateway waits for 5 s. The row of a replica that stands still amid a redemption is free again after `silence_s`.
PATIENCE = Patience(connection_s=1.0, lock_s=1.0, silence_s=3.0)


class Till:
    """The places and connections of redemptions."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._pairs, self._rules = (Turns(OF_A_RULE, waiting=WAITING, patience_s=TURN_S) for _ in range(2))
        self._websites = Turns(OF_A_WEBSITE, waiting=WAITING, patience_s=TURN_S)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, schema: str) -> AsyncIterator[Till]:
        """The connections are closed at the end."""
        db = await Database.open(url, schema=schema, pool_size=CONNECTIONS, patience=PATIENCE)
        try:
            yield cls(db)
        finally:
            await db.close()

    @asynccontextmanager
    async def tx(self, rule: int | None, website: str) -> AsyncIterator[Tx]:
        """A transaction about a rule (its number; None for all codes that nobody has). Raises Problem 503 busy when its turn does
        not come, and what the database raises for a lock that others keep."""
        # In this order: a rule has not all places of a website, and who waits for those of his website has none of the rule,
        # which is for other websites too.
        async with (
            self._pairs.of((rule, website)),
            self._websites.of(website),
            self._rules.of(rule),
            self.db.tx() as tx,
        ):
            yield tx
