"""Called by the consumer per poll, and by HTTP. Decodes records and applies them; what cannot be applied stops nothing else.

A batch that fails, for no reason that passes, is cut in halves, down to the one record. When a harmless event could be applied in
its place, that one is dead-lettered as `poison`; otherwise the trouble is ours, and the record is taken again later. A batch that
takes too long is halved too. After one that took much of that time the next ones are smaller, so that little is done in vain.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from chassis.bus import Fenced, Record
from chassis.bus_places import Slice
from chassis.db import TooLong, passes
from chassis.telemetry import get_logger
from msgspec.json import encode

from segment_svc import wire
from segment_svc.definitions import ClockOff
from segment_svc.deps import Deps
from segment_svc.domain.profile import NewerState
from segment_svc.flows.apply_events import LONG_S, Receipt, apply_events, rehearse
from segment_svc.store import Conflict

HEADERS = (("content-type", b"application/cloudevents+json"),)
MOST = 100_000  # records at a time: whatever a poll brings
log = get_logger("ingest")


class Ingest:
    """`logged`: the slices are steps over a log, whose position moves with them."""

    def __init__(self, deps: Deps, *, logged: bool) -> None:
        self._deps, self._logged, self._most = deps, logged, MOST

    async def __call__(self, slices: Sequence[Slice]) -> Receipt:
        """Apply the records. Raises Fenced, and whatever may pass; then what was not applied is to be taken again."""
        whole, rest = Receipt(), slices
        while rest:
            lot, rest = _cut(rest, self._most)
            began_s, count = time.monotonic(), sum(len(step.records) for step in lot)
            whole.add(await self._applied(lot))
            share = (time.monotonic() - began_s) / (LONG_S / 2)
            self._most = max(1, int(count / share)) if share > 1 else min(MOST, self._most + self._most // 8 + 1)
        return whole

    async def _applied(self, slices: Sequence[Slice]) -> Receipt:
        records = [record for step in slices for record in step.records]
        incoming, dead = wire.decode(self._deps.codec, records, now=self._deps.clock.now_ms())
        try:
            receipt = await apply_events(self._deps, incoming, slices if self._logged else (), dead=dead)
        except Exception as error:
            if isinstance(error, Fenced | Conflict | NewerState | ClockOff) or passes(error):
                raise
            if isinstance(error, TooLong):
                self._most = max(1, len(records) // 2)
            if not records:
                raise
            return await (self._halved(slices) if len(records) > 1 else self._poisoned(slices, records[0], error))
        return receipt

    async def _halved(self, slices: Sequence[Slice]) -> Receipt:
        first, rest = _cut(slices, sum(len(step.records) for step in slices) // 2)
        receipt = await self._applied(first)
        receipt.add(await self._applied(rest))
        return receipt

    async def _poisoned(self, slices: Sequence[Slice], record: Record, error: Exception) -> Receipt:
        if not await self._harmless():
            raise error
        log.error(
            "event_poison", topic=record.topic, partition=record.partition, offset=record.offset,
            error=type(error).__name__, detail=str(error)[:500],
        )  # fmt: skip
        dead = [wire.Dead(record, "poison", type(error).__name__)]
        return await apply_events(self._deps, [], slices if self._logged else (), dead=dead)

    async def _harmless(self) -> bool:
        """Whether an event that nobody can object to, of somebody nobody knows, could be applied now."""
        now, name = self._deps.clock.now_ms(), uuid.uuid4().hex
        event = {
            "specversion": "1.0", "id": name, "source": "segment-svc", "type": "page_view", "subject": f"visitor:{name}",
            "time": datetime.fromtimestamp(now / 1000, UTC).isoformat(), "data": {},
        }  # fmt: skip
        incoming, dead = wire.decode(self._deps.codec, [Record("rehearsal", None, encode(event), HEADERS)], now=now)
        try:
            await rehearse(self._deps, incoming)
        except Exception as error:
            log.error("rehearsal_failed", error=type(error).__name__, detail=str(error)[:500])
            return False
        return not dead


def _cut(slices: Sequence[Slice], count: int) -> tuple[list[Slice], list[Slice]]:
    """The same steps in two lots, the first of so many records at most."""
    first: list[Slice] = []
    rest = list(slices)
    while rest and len(rest[0].records) <= count:
        count -= len(rest[0].records)
        first.append(rest.pop(0))
    if count and rest:
        before, after = rest[0].cut(count)
        first.append(before)
        rest[0] = after
    return first, rest
