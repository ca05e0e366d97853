"""The facts of promo-svc, and the currencies there are; the only file that imports the contracts."""

from __future__ import annotations

from collections.abc import Sequence

from chassis import bus
from chassis.bus import Record
from contracts import facts, topics
from contracts.currencies import EXPONENTS

CURRENCIES = frozenset(EXPONENTS)


def targeting_fact(version: int, tags: Sequence[str], now: int) -> list[bytes]:
    """Outbox payloads: one targeting.changed.v1 fact."""
    fact = facts.targeting(source="promo-svc", website="", version=version, tags=list(tags), time_ms=now)
    return bus.pack([Record(topics.TARGETING_CHANGED, None, fact, facts.HEADERS)])
