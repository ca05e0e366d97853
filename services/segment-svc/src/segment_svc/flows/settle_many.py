"""Called by the flows that evaluate people who had no event: the backfill, the sweep, and a clock that was set back.

Whoever evaluates shares the lock that a change of the definitions takes alone, so they look at the clock after each person: a
segment is off a moment after somebody says so, however dear the rules of the others are.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from chassis.db import Tx
from chassis.telemetry import get_logger

from segment_svc import store
from segment_svc.definitions import Rules
from segment_svc.domain import profile as people
from segment_svc.domain.ruleset import RuleRaised, Timeline
from segment_svc.domain.transition import Transition
from segment_svc.flows.apply_events import catch_up, settle, worked
from segment_svc.store import Row

LONG_S = 0.5
log = get_logger("settle")


async def settle_many(
    tx: Tx, keys: Sequence[str], found: Mapping[str, Row], rules: Rules, *, now: int, wary: bool
) -> Sequence[str]:
    """Bring people, in the order of `keys`, to what the rules say now; of those `found`, all others are passed over.

    Answers the keys that were done: as many as LONG_S sufficed for, at least one. `wary`: who cannot be evaluated is named, and
    looked at again later. Raises RuleRaised.
    """
    began, done = time.monotonic(), 0
    moves: list[Transition] = []
    odd: list[str] = []

    async def in_turn() -> AsyncIterator[Row]:
        nonlocal done
        for key in keys:
            if done and time.monotonic() - began > LONG_S:
                break
            done += 1
            if (row := found.get(key)) is None:
                continue
            if wary and not await _sound(tx, row, rules, now=now):
                odd.append(key)
                continue
            moves.extend(await catch_up(tx, [row], rules, now))
            yield row

    await settle(tx, in_turn(), rules, now=now, moves=moves)
    if odd:
        await store.postpone(tx, odd, now)
    return keys[:done]


async def _sound(tx: Tx, row: Row, rules: Rules, *, now: int) -> bool:
    """Whether a person can be evaluated. Raises RuleRaised."""
    try:
        copy = replace(row, profile=people.decode(people.encode(row.profile)))
        people.advance(copy.profile, now)
        await worked(tx, copy, _decided, rules, now)
        await catch_up(tx, [copy], rules, now)
    except RuleRaised:
        raise
    except Exception as error:
        log.error("person_raises", profile=row.key, error=type(error).__name__)
        return False
    return True


def _decided(row: Row, rules: Rules, now: int) -> Timeline:
    return rules.ruleset.timeline(row.profile, now, horizon_ms=rules.horizon_ms, key=row.key)
