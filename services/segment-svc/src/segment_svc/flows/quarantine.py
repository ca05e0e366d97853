"""Called wherever people are evaluated. A rule that raises is taken out, by name, and the work is done again without it.

Nobody is in a quarantined segment, nor in one that refers to it: what cannot be evaluated is neither in nor out. Saving the
segment again ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from chassis.auth import Actor
from chassis.db import Tx, passes
from chassis.pace import pause_s
from chassis.problems import Problem
from chassis.telemetry import get_logger

from segment_svc import definitions, store
from segment_svc.definitions import SHADOW_MARK
from segment_svc.deps import Deps
from segment_svc.domain.definition import spread
from segment_svc.domain.ruleset import RuleRaised

T = TypeVar("T")
MARK = "UPDATE plan SET cause = $3 WHERE segment_id = $1 AND live = $2 AND cause IS NULL RETURNING version"
MOST_ROUNDS, ATTEMPTS = 100, 8
OURSELVES = Actor("segment-svc", "viewer")
log = get_logger("quarantine")


async def guarded(deps: Deps, work: Callable[[], Awaitable[T]]) -> T:
    """Do work that evaluates people, without the rules that turn out to raise. It must start anew each time."""
    for _ in range(MOST_ROUNDS):
        try:
            return await work()
        except RuleRaised as raised:
            await quarantine(deps, raised.causes, raised.versions)
    return await work()


async def agreed(deps: Deps, work: Callable[[], Awaitable[T]]) -> T:
    """Guarded work on people others work on too: begun anew while they are faster. Raises Conflict in the end."""
    for attempt in range(ATTEMPTS - 1):
        with contextlib.suppress(store.Conflict):
            return await guarded(deps, work)
        await asyncio.sleep(pause_s(attempt, base_s=0.005, most_s=0.5))
    return await guarded(deps, work)


async def patient(deps: Deps, work: Callable[[bool], Awaitable[T]]) -> T:
    """Do work over many people; when it fails, for no reason that passes, again with `wary`: without those it fails for."""
    try:
        return await guarded(deps, lambda: work(False))
    except Exception as error:
        if passes(error) or isinstance(error, store.Conflict):
            raise
    return await guarded(deps, lambda: work(True))


async def quarantine(deps: Deps, causes: Mapping[str, str], versions: Mapping[str, int]) -> None:
    """Take rules out, with those that refer to them: key (of a shadow plan, with its mark) -> the kind of error.

    A rule that is at another version by now than the one that was tried (see RuleRaised) stays: it was mended meanwhile.
    """
    async with deps.db.tx() as tx:
        now = await definitions.alone(tx, deps.clock)
        plans = {
            name: (plan, condition) for name, plan, condition in definitions.named(await definitions.read_plans(tx))
        }
        causes = {
            name: cause
            for name, cause in causes.items()
            if name in plans and plans[name][0]["version"] == versions.get(name, plans[name][0]["version"])
        }
        if not causes:
            return
        found = spread(causes, {name: condition for name, (_, condition) in plans.items()})
        keys = {name.removesuffix(SHADOW_MARK) for name in found}
        await definitions.publish(tx, [f"segment:{key}" for key in sorted(keys)], now=now, after=deps.rulebook.highest)
        for name, cause in found.items():
            await _take_out(tx, plans[name][0], cause.removesuffix(SHADOW_MARK), now=now)
    deps.relay.wake()
    users = await _users(deps, sorted(keys))
    for name, cause in found.items():
        key = name.removesuffix(SHADOW_MARK)
        log.error("segment_quarantined", segment=key, cause=cause, live=name == key, used_by=users.get(key, []))


async def _take_out(tx: Tx, plan: Mapping[str, Any], cause: str, *, now: int) -> None:
    """A live plan stays, and has no members; a shadow plan will not serve."""
    version = await tx.fetchval(MARK, plan["id"], plan["live"], cause)
    if version is not None and plan["live"]:
        await store.empty(tx, plan["id"], version=version, cause="quarantine", now=now)


async def _users(deps: Deps, keys: list[str]) -> dict[str, list[str]]:
    try:
        return {key: await deps.users.of(key, OURSELVES) for key in keys}
    except Problem:
        return {}
