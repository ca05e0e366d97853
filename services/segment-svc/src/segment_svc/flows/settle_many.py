"""Called by the flows that evaluate people who had no event: the backfill, the sweep, and a clock that was set back.

Whoever evaluates shares the lock that a change of the definitions takes alone, so they work in lots that double for LONG_S: a
segment is off a moment after somebody says so, however dear the rules of the others are.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from chassis.db import Tx
from chassis.telemetry import get_logger

from segment_svc import store
from segment_svc.definitions import Rules
from segment_svc.domain import profile as people
from segment_svc.domain.ruleset import RuleRaised
from segment_svc.flows.apply_events import catch_up, settle
from segment_svc.store import Row

LONG_S, FIRST = 0.5, 64
log = get_logger("settle")


def lots(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Keys in order, as many as can be done in about LONG_S, or twice as long."""
    began, at, size = time.monotonic(), 0, FIRST
    while at < len(keys) and (at == 0 or time.monotonic() - began < LONG_S):
        yield keys[at : at + size]
        at, size = at + size, size * 2


async def settle_lot(tx: Tx, rows: Iterable[Row], rules: Rules, *, now: int, wary: bool) -> None:
    """Bring people to what the rules say now. `wary`: who cannot be evaluated is left for later. Raises RuleRaised."""
    some = await _sound(tx, rows, rules, now=now) if wary else list(rows)
    await settle(tx, some, rules, now=now, moves=await catch_up(tx, some, rules, now))


async def _sound(tx: Tx, rows: Iterable[Row], rules: Rules, *, now: int) -> list[Row]:
    """The rows that can be evaluated; the others are named, and looked at again later. Raises RuleRaised."""
    found, odd = [], []
    for row in rows:
        try:
            copy = people.decode(people.encode(row.profile))
            people.advance(copy, now)
            rules.ruleset.timeline(copy, now, horizon_ms=rules.horizon_ms, key=row.key)
            await catch_up(tx, [replace(row, profile=copy)], rules, now)
        except RuleRaised:
            raise
        except Exception as error:
            log.error("person_raises", profile=row.key, error=type(error).__name__)
            odd.append(row.key)
        else:
            found.append(row)
    if odd:
        await store.postpone(tx, odd, now)
    return found
