"""What is killed, as the gateways say: kept for when they, and Redis, have lost it. Nothing else is done with it here."""

from __future__ import annotations

import json
from typing import Any

from chassis.db import Tx

from content_svc.schemas import KillList

KILLS_DDL = (
    """CREATE TABLE kills (
        one boolean PRIMARY KEY DEFAULT true CHECK (one), list text NOT NULL, number bigint NOT NULL, last text NOT NULL,
        names text NOT NULL
    )""",
    "INSERT INTO kills (list, number, last, names) VALUES ('', 0, '', '{}')",
)
# Whoever looked before another one wrote looks again: of two gateways none may undo what the other one knows.
REPLACE = """UPDATE kills SET list = $1, number = $2, last = $3, names = $4
    WHERE list = $5 AND number = $6 AND last = $7"""


async def kept(tx: Tx) -> dict[str, Any]:
    """The list, with what tells which state of which list it is."""
    found = await tx.fetchrow("SELECT list, number, last, names FROM kills")
    return {**found, "names": json.loads(found["names"])}


async def keep(tx: Tx, given: KillList) -> dict[str, Any]:
    """Put a list over the one that its sender has seen, if that is still kept; answers which one is kept now."""
    over, names = given.over, json.dumps({name: kill.model_dump() for name, kill in given.names.items()})
    await tx.execute(REPLACE, given.list, given.number, given.last, names, over.list, over.number, over.last)
    return await kept(tx)
