"""Called wherever people are evaluated. A rule that raises is taken out, by name, and the work is done again without it.

Nobody is in a quarantined segment, nor in one that refers to it: what cannot be evaluated is neither in nor out. Saving the
segment again ends it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from chassis.db import Tx
from chassis.problems import Problem
from chassis.telemetry import get_logger

from segment_svc import definitions, store
from segment_svc.definitions import SHADOW_MARK
from segment_svc.deps import Deps
from segment_svc.domain.ruleset import RuleRaised

T = TypeVar("T")
MOST_ROUNDS = 100
PUT = """INSERT INTO quarantine (segment_id, version, cause, at)
    SELECT p.segment_id, p.version, $3, $4 FROM plan p JOIN segment s ON s.id = p.segment_id
    WHERE s.key = $1 AND p.live = $2 ON CONFLICT DO NOTHING RETURNING segment_id, version"""
log = get_logger("quarantine")


async def guarded(deps: Deps, work: Callable[[], Awaitable[T]]) -> T:
    """Do work that evaluates people, without the rules that turn out to raise. It must start anew each time."""
    for _ in range(MOST_ROUNDS):
        try:
            return await work()
        except RuleRaised as raised:
            await quarantine(deps, raised.causes)
    return await work()


async def quarantine(deps: Deps, causes: Mapping[str, str]) -> None:
    """Take rules out: key (of the shadow plan, with its mark) -> the kind of error."""
    now = deps.clock.now_ms()
    live = {key: cause for key, cause in causes.items() if not key.endswith(SHADOW_MARK)}
    shadow = {key.removesuffix(SHADOW_MARK): cause for key, cause in causes.items() if key not in live}
    async with deps.db.tx() as tx:
        await definitions.publish(tx, [f"segment:{key}" for key in sorted({*live, *shadow})], now=now)
        stored = await definitions.read_all(tx)
        for group, serving in ((live, True), (shadow, False)):
            for key in list(group):
                for user in definitions.dependents(stored, key):
                    group.setdefault(user.key, f"refers to {key}")
            for key, cause in group.items():
                await _take_out(tx, key, cause, serving=serving, now=now)
    deps.relay.wake()
    users = await _users(deps, [*live, *shadow])
    for key, cause in {**shadow, **live}.items():
        log.error("segment_quarantined", segment=key, cause=cause, live=key in live, used_by=users.get(key, []))


async def _take_out(tx: Tx, key: str, cause: str, *, serving: bool, now: int) -> None:
    for segment_id, version in await tx.fetch(PUT, key, serving, cause, now):
        if serving:
            await store.empty(tx, segment_id, version=version, cause="quarantine", now=now)
        else:
            await tx.execute("DELETE FROM plan WHERE segment_id = $1 AND NOT live", segment_id)


async def _users(deps: Deps, keys: list[str]) -> dict[str, list[str]]:
    try:
        return {key: await deps.users.of(key) for key in keys}
    except Problem:
        return {}
