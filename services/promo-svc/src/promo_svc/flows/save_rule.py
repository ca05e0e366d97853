"""Called by the API when a merchant saves, disables or deletes a rule. Publishes the next version of everything.

What is saved has been run: the rule is compiled and evaluated on made-up carts before its transaction commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from time import thread_time
from typing import Any

from chassis import documents
from chassis.auth import Actor
from chassis.db import Tx
from chassis.documents import Document, Edit
from chassis.problems import Problem
from chassis.snapshot import publishing
from chassis.telemetry import get_logger
from chassis.websites import named

from promo_svc import wire
from promo_svc.deps import Deps
from promo_svc.domain.cart import DEAR_CART_S, DEAR_S, Dear, DearCart
from promo_svc.domain.evaluate import RuleSet
from promo_svc.domain.probe import Unsound, prove, weigh
from promo_svc.domain.rule import Rule, check, coupon_code, rule_of
from promo_svc.domain.together import weigh_together
from promo_svc.snapshot import KIND, is_live

log = get_logger("promo")


async def save_rule(deps: Deps, key: str, body: dict[str, Any], *, expected: int | None, actor: Actor) -> Document:
    """Save a rule. Raises Problem 409, 404, 412, 422 rule-invalid with pointers."""
    verify(body)
    edit = Edit(KIND, key, body, expected, actor, needs=await deps.segment_version())
    async with publishing(deps.db, deps.snapshot, deps.relay) as tx:
        saved = await _apply(tx, edit)
        assert saved is not None
        if is_live(saved) and saved.body["coupon"]:
            own_code(saved, await documents.read_all(tx, KIND), actor)
        # Which takes its time.
        await asyncio.to_thread(run, saved, deps.snapshot.value.rules.rules, await deps.now(tx))
    return saved


async def delete_rule(deps: Deps, key: str, *, expected: int | None, actor: Actor) -> None:
    """Delete a rule. Raises Problem 404, 412."""
    async with publishing(deps.db, deps.snapshot, deps.relay) as tx:
        await _apply(tx, Edit(KIND, key, None, expected, actor))


async def disable_rule(deps: Deps, key: str, *, actor: Actor) -> Document:
    """Switch a rule off at once, whatever version it is at, readable or not, and whoever saves. Raises Problem 404."""
    async with publishing(deps.db, deps.snapshot, deps.relay) as tx:
        found = await documents.read(tx, KIND, key, reader=actor)
        saved = await _apply(tx, Edit(KIND, key, {**found.body, "status": "disabled"}, found.version, actor))
    assert saved is not None
    return saved


async def _apply(tx: Tx, edit: Edit) -> Document | None:
    edit = replace(edit, tags=(f"rule:{edit.key}", "promo"))
    return await documents.apply(tx, edit, fact=wire.targeting_fact)


def verify(body: dict[str, Any]) -> None:
    """Check the trees of a body. Raises Problem 422 rule-invalid."""
    faults = check(body)
    if faults:
        errors = [{"pointer": f.pointer, "detail": f.detail} for f in faults]
        raise Problem("rule-invalid", 422, "The rule cannot be used", errors=errors)


def own_code(saved: Document, everything: Sequence[Document], reader: Actor) -> None:
    """No other live rule has the code of this one. Raises Problem 422 rule-invalid."""
    code = coupon_code(saved.body["coupon"])
    for other in everything:
        if other.key != saved.key and is_live(other) and coupon_code(str(other.body.get("coupon"))) == code:
            (who,) = named({f"the live rule {other.key}": other.body}, reader)
            raise _invalid("/coupon", f"{who} has this code")


def run(saved: Document, others: Sequence[Rule], now_ms: int) -> None:
    """Run a rule alone and beside the others on made-up carts. Raises Problem 422 rule-invalid, and names no other rule."""
    try:
        rule = rule_of(saved.id, saved.key, saved.version, saved.body)
        prove(rule, RuleSet.compile(0, [*(r for r in others if r.id != rule.id), rule]))
        weigh(rule, thread_time)
        if is_live(saved):
            weigh_together(rule, others, thread_time, now_ms)
    except DearCart:
        raise _invalid(
            "",
            f"the live rules of a website take over {DEAR_CART_S * 1000:.0f} ms together for a large cart with this one: "
            "fewer of them are needed, or fewer conditions on lines",
        ) from None
    except Dear:
        raise _invalid(
            "", f"it takes over {DEAR_S * 1000:.0f} ms for a large cart: fewer conditions on lines are needed"
        ) from None
    except Exception as error:
        cause = error.__cause__ if isinstance(error, Unsound) else error
        log.error("rule_refused_by_probe", rule=saved.key, error=type(cause).__name__)
        raise _invalid("", "the rule cannot be evaluated") from None


def _invalid(pointer: str, detail: str) -> Problem:
    return Problem("rule-invalid", 422, "The rule cannot be used", errors=[{"pointer": pointer, "detail": detail}])
