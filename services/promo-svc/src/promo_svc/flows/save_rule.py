"""Called by the API when a merchant saves, disables or deletes a rule. Publishes the next version of everything.

What is saved has been run: the rule is compiled and evaluated on made-up carts before its transaction commits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from time import thread_time
from typing import Any

from chassis import documents
from chassis.auth import Actor
from chassis.beside import owner
from chassis.db import Tx
from chassis.documents import Document, Edit
from chassis.problems import Problem
from chassis.quota import Quota
from chassis.snapshot import publishing
from chassis.telemetry import get_logger
from chassis.websites import named, overlap, theirs, touched

from promo_svc import wire
from promo_svc.deps import Deps
from promo_svc.domain.cart import DEAR_CART_S, DEAR_S, Dear, DearCart
from promo_svc.domain.evaluate import RuleSet
from promo_svc.domain.probe import MOST_PROBING_S, Endless, Unsound, bounded, prove, weigh
from promo_svc.domain.rule import Rule, check, coupon_code, rule_of
from promo_svc.domain.together import Full, meet, weigh_together
from promo_svc.snapshot import KIND, LIVE, is_live, typed

# One that is as full as it can be has to live in 256 MiB (deploy/k8s): 110 MiB with nothing in it, and four times what is live
# and what is kept of the versions before it (`chassis.snapshot.KEPT_BYTES`), 4 * (8 + 4) MiB; the rest is for carts.
QUOTA = Quota("cart rule", 128 * 1024, 2048 * 1024, 8192 * 1024, "/condition")
MOST_ROUNDS = 3  # how often a rule is tried anew for what was published meanwhile
log = get_logger("promo")


class _Joined(Exception):
    """Meanwhile somebody published a rule that one cart can meet together with this one."""


async def save_rule(deps: Deps, key: str, body: dict[str, Any], *, expected: int | None, actor: Actor) -> Document:
    """Save a rule. Raises Problem 403 not-your-website, 409 exists or quota-full, 404, 412, 422 too-large, or rule-invalid with
    pointers, 503 busy.
    """
    verify(body)
    theirs(actor, touched(body))
    edit = Edit(KIND, key, body, expected, actor, needs=await deps.segment_version())
    for _ in range(MOST_ROUNDS):
        await deps.snapshot.refresh()
        beside = deps.snapshot.value.rules.rules
        async with deps.db.tx() as tx:
            now = await deps.now(tx)
        # Before anything is locked: whoever may save for the same websites has one thread, and others need not wait for it.
        rule = await deps.saves.run(owner(actor), run, key, body, beside, now)
        with contextlib.suppress(_Joined):
            async with publishing(deps.db, deps.snapshot, deps.relay) as tx:
                saved = await _apply(tx, edit)
                assert saved is not None
                if is_live(saved):
                    own_code(saved, deps.snapshot.documents, actor)
                    _unjoined(rule, beside, deps.snapshot.documents, now)
            return saved
    raise Problem("busy", 503, "Others save rules for the same carts", headers={"retry-after": "2"})


def _unjoined(rule: Rule, beside: Sequence[Rule], live: Sequence[Document], now_ms: int) -> None:
    """Raises _Joined for a live rule that was not `beside` this one when it was run, and that one cart can meet with it."""
    known = {(other.id, other.version) for other in beside}
    others = (other for other in live if other.key != rule.key and is_live(other))
    if any(_meets(rule, other, now_ms) for other in others if (other.id, other.version) not in known):
        raise _Joined


def _meets(rule: Rule, other: Document, now_ms: int) -> bool:
    try:
        return meet(rule, typed(other), now_ms)
    except Exception:  # what cannot be read is in no cart
        return False


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
    return await documents.apply(tx, edit, quota=QUOTA, fact=wire.targeting_fact)


def verify(body: dict[str, Any]) -> None:
    """Check the trees of a body. Raises Problem 422 rule-invalid."""
    faults = check(body)
    if faults:
        errors = [{"pointer": f.pointer, "detail": f.detail} for f in faults]
        raise Problem("rule-invalid", 422, "The rule cannot be used", errors=errors)


def own_code(saved: Document, live: Sequence[Document], reader: Actor) -> None:
    """No other rule of those that are live on a website of this one has its code. Raises Problem 422 rule-invalid."""
    code = coupon_code(saved.body["coupon"])
    others = (other for other in live if other.key != saved.key and is_live(other)) if code else ()
    for other in others:
        if coupon_code(str(other.body.get("coupon"))) == code and overlap(saved.body, other.body):
            (who,) = named({f"the live rule {other.key}": other.body}, reader)
            raise _invalid("/coupon", f"{who} has this code")


def run(key: str, body: dict[str, Any], others: Sequence[Rule], now_ms: int) -> Rule:
    """Run a rule alone and, a live one, beside the others on made-up carts. Raises Problem 422 rule-invalid, and names no other
    rule."""
    clock = bounded(thread_time)
    try:
        rule = rule_of(0, key, 0, body)
        prove(rule, RuleSet.compile(0, [*(r for r in others if r.key != key), rule]))
        weigh(rule, clock)
        if body["status"] == LIVE:
            weigh_together(rule, others, clock, now_ms)
        return rule
    except Full as full:
        raise _invalid(
            "/websites",
            f"the live rules of {full.website or 'all websites'} take over {DEAR_CART_S * 1000:.0f} ms together for a large cart "
            "with this one: fewer of them are needed, or fewer conditions on lines",
        ) from None
    except Endless:
        raise _invalid(
            "/websites",
            f"to try it beside the live rules of its websites takes over {MOST_PROBING_S:.0f} s: fewer websites, groups or "
            "conditions on lines are needed",
        ) from None
    except (Dear, DearCart):
        raise _invalid(
            "", f"it takes over {DEAR_S * 1000:.0f} ms for a large cart: fewer conditions on lines are needed"
        ) from None
    except Exception as error:
        cause = error.__cause__ if isinstance(error, Unsound) else error
        log.error("rule_refused_by_probe", rule=key, error=type(cause).__name__)
        raise _invalid("", "the rule cannot be evaluated") from None


def _invalid(pointer: str, detail: str) -> Problem:
    return Problem("rule-invalid", 422, "The rule cannot be used", errors=[{"pointer": pointer, "detail": detail}])
