"""Called by the API around an order: reserve a coupon, then confirm or release it. Idempotent by key.

The row of the rule in coupon_use is locked before its redemptions are looked at, always in this order; a key is claimed by
inserting it. So a limit holds, and nobody waits in a circle, whatever comes at once. What time it is, is asked once that row is
locked, of the database: who is later in the queue is later in time, at whichever replica.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from chassis.auth import Actor
from chassis.problems import Problem

from promo_svc.deps import Deps
from promo_svc.domain.cart import Request
from promo_svc.domain.rule import coupon_code
from promo_svc.snapshot import published

HOLD_MS = 15 * 60 * 1000
LOCK = "SELECT 1 FROM coupon_use WHERE rule_id = $1 FOR UPDATE"
BY_KEY = "SELECT * FROM redemption WHERE website = $1 AND idempotency_key = $2"
CLAIM = """INSERT INTO redemption VALUES ($1, $2, $3, $4, $5, $6, $7, 'reserved', $8)
    ON CONFLICT (website, idempotency_key) DO NOTHING RETURNING *"""
COUNT = "UPDATE coupon_use SET used = used + 1 WHERE rule_id = $1 AND ($2 = 0 OR used < $2) RETURNING used"
RECLAIM = """WITH gone AS (
        UPDATE redemption SET status = 'expired' WHERE rule_id = $1 AND status = 'reserved' AND expires_at <= $2 RETURNING 1
    ) UPDATE coupon_use SET used = used - (SELECT count(*) FROM gone) WHERE rule_id = $1"""
USES = """SELECT count(*) FROM redemption
    WHERE rule_id = $1 AND customer = $2 AND status IN ('reserved', 'confirmed')"""


@dataclass(frozen=True, slots=True)
class Wish:
    """Who wants to use which coupon, under which idempotency key of a website. `asked`: for whom, as for a cart with it."""

    coupon: str
    customer: str
    idempotency_key: str
    asked: Request


def _refused() -> Problem:
    """One answer for unknown, exhausted and not eligible: a guesser learns nothing."""
    return Problem("coupon-not-available", 409, "The coupon cannot be used")


async def reserve(deps: Deps, wish: Wish) -> dict[str, Any]:
    """Hold one use for 15 minutes. Raises Problem 409 coupon-not-available, redemption-over, 412, 422 idempotency-key-reused, 503
    busy."""
    rule = published(deps.snapshot, wish.asked.version).coupon(wish.asked)
    request = json.dumps([coupon_code(wish.coupon) or wish.coupon, wish.customer])
    async with deps.till.tx(None if rule is None else rule.id, wish.asked.website) as tx:
        found = await tx.fetchrow(BY_KEY, wish.asked.website, wish.idempotency_key)
        if found is not None:
            return _answer(found, request)
        if rule is None:
            raise _refused()
        await tx.execute("INSERT INTO coupon_use (rule_id) VALUES ($1) ON CONFLICT DO NOTHING", rule.id)
        await tx.execute(LOCK, rule.id)
        now = await deps.now(tx)
        made = await tx.fetchrow(
            CLAIM,
            uuid.uuid4(),
            wish.asked.website,
            wish.idempotency_key,
            request,
            rule.id,
            rule.key,
            wish.customer,
            now + HOLD_MS,
        )
        if made is None:  # somebody else had the key meanwhile
            return _answer(await tx.fetchrow(BY_KEY, wish.asked.website, wish.idempotency_key), request)
        await tx.execute(RECLAIM, rule.id, now)
        if await tx.fetchval(COUNT, rule.id, rule.uses_total) is None:
            raise _refused()
        most = rule.uses_per_customer
        if most and await tx.fetchval(USES, rule.id, wish.customer) > most:
            raise _refused()
        return _answer(made, request)


def _answer(record: Any, request: str) -> dict[str, Any]:
    if record["request"] != request:
        raise Problem("idempotency-key-reused", 422, "The key was used for another request")
    if record["status"] not in ("reserved", "confirmed"):
        raise _over(record)
    return {
        "id": str(record["id"]),
        "rule": record["rule"],
        "status": record["status"],
        "expires_at": record["expires_at"],
    }


def _over(record: Any) -> Problem:
    return Problem("redemption-over", 409, f"The redemption is {record['status']}")


async def finish(deps: Deps, redemption: uuid.UUID, *, shop: Actor, confirm: bool) -> dict[str, Any]:
    """Confirm or release a reservation; doing it again answers the same. Raises Problem 404, for one of another website too, 409
    redemption-over, 503 busy."""
    wanted = "confirmed" if confirm else "released"
    async with deps.till.db.tx() as tx:  # which waits for nobody
        known = await tx.fetchrow("SELECT rule_id, website FROM redemption WHERE id = $1", redemption)
    if known is None or not shop.serves([known["website"]]):
        raise Problem("not-found", 404, "No such redemption")
    rule = known["rule_id"]
    async with deps.till.tx(rule, known["website"]) as tx:
        await tx.execute(LOCK, rule)
        found = await tx.fetchrow("SELECT * FROM redemption WHERE id = $1", redemption)
        if found["status"] == "reserved":
            await tx.execute("UPDATE redemption SET status = $2 WHERE id = $1", redemption, wanted)
            if not confirm:
                await tx.execute("UPDATE coupon_use SET used = used - 1 WHERE rule_id = $1", rule)
        elif found["status"] != wanted:
            raise _over(found)
    return {"id": str(redemption), "rule": found["rule"], "status": wanted, "expires_at": found["expires_at"]}
