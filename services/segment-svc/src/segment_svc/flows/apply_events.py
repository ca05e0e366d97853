"""Called by ingest per batch. Reads and writes profiles and memberships, emits facts.

Everything a batch does commits in one transaction: read positions (compared and set), profiles, memberships,
transitions, activity, and, through the outbox, audience documents, membership facts and dead letters.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import thread_time
from typing import Any, TypeVar

from chassis import outbox
from chassis.bus import Fenced
from chassis.bus_places import Slice
from chassis.db import Tx
from chassis.documents import FACTS
from chassis.telemetry import get_logger

from segment_svc import identities, positions, store, wire
from segment_svc.definitions import Rules
from segment_svc.deps import Deps
from segment_svc.domain import bounds
from segment_svc.domain import profile as people
from segment_svc.domain.activity import Activity
from segment_svc.domain.facts import Facts
from segment_svc.domain.ruleset import Timeline
from segment_svc.domain.transition import Transition
from segment_svc.flows.quarantine import agreed, guarded
from segment_svc.store import Row
from segment_svc.telemetry import DEAD, DEAR, EVENTS

CHUNK, LONG_S = 250, 2.0
LARGE = 64 * 1024  # bytes of state; one event of every type takes 3 KiB
MOST_LEGS = bounds.LIMIT + 100  # an event dated ahead ends one
SLOW_S = 0.15  # of this thread's own time, which a busy machine does not add to
T = TypeVar("T")
log = get_logger("apply")
REFUSED = {
    "too_old": "older than what is kept of its type, so that it cannot be told from a duplicate",
    "too_many_ahead": "too many events of this person wait for their time already",
    "too_many_types": f"this person has {bounds.MOST_CUSTOM} types of custom events already",
    "too_many_names": "this person would have over {attributes} attributes or {purposes} purposes".format_map(
        bounds.MOST_NAMES
    ),
}


@dataclass(slots=True)
class Receipt:
    """What became of a batch: counts of outcomes, and what was not applied, with the reasons."""

    outcomes: Counter[str] = field(default_factory=Counter)
    dead: list[wire.Dead] = field(default_factory=list)

    def add(self, other: Receipt) -> None:
        """And what became of another batch."""
        self.outcomes += other.outcomes
        self.dead += other.dead


@dataclass(slots=True)
class Touched:
    """The people a batch works on: rows by key, their last event, who was merged, and the names that changed hands."""

    rows: dict[str, Row]
    sources: dict[str, wire.Incoming] = field(default_factory=dict)
    merged: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    kept: list[tuple[str, int, Activity]] = field(default_factory=list)

    def resolve(self, identity: str) -> Row:
        """The row an identity belongs to now."""
        row = store.resolve(self.rows, identity)
        assert row is not None
        return row


async def apply_events(
    deps: Deps, incoming: Sequence[wire.Incoming], steps: Sequence[Slice] = (), *, dead: Sequence[wire.Dead] = ()
) -> Receipt:
    """Apply a batch. With `steps` (of a log), what is not applied leaves as dead letters in the same transaction.

    Raises chassis.bus.Fenced when another consumer already went past one of the steps, and chassis.db.TooLong.
    """
    receipt = await agreed(deps, lambda: _attempt(deps, incoming, steps, dead))
    deps.relay.wake()
    for outcome, count in receipt.outcomes.items():
        EVENTS.labels(outcome=outcome).inc(count)
    for letter in receipt.dead:
        DEAD.labels(reason=letter.reason).inc()
    return receipt


class _Undone(Exception):
    """Ends a rehearsal."""


async def rehearse(deps: Deps, incoming: Sequence[wire.Incoming]) -> None:
    """Apply a batch and undo it. Raises what applying it would."""
    with contextlib.suppress(_Undone):
        await guarded(deps, lambda: _attempt(deps, incoming, (), (), undo=True))


async def _attempt(
    deps: Deps, incoming: Sequence[wire.Incoming], steps: Sequence[Slice], dead: Sequence[wire.Dead], *, undo: bool = False
) -> Receipt:  # fmt: skip
    receipt, touched = Receipt(dead=list(dead)), None
    async with deps.db.tx(most_s=LONG_S if len(incoming) > 1 else None) as tx:
        if steps and not await positions.fence(tx, steps):
            raise Fenced
        rules = await deps.rulebook.current(tx)
        if incoming:
            keys = {key for event in incoming for key in event.identities}
            touched = Touched(await store.load(tx, keys, deps.recent))
            now = rules.instant(deps.clock, touched.rows.values())
            late = [row for row in touched.rows.values() if _overdue(row, now)]
            moves = await catch_up(tx, late, rules, now)
            _fold(touched, incoming, receipt=receipt, now=now)
            changed = {*touched.sources, *touched.merged, *(row.key for row in late)}
            live = [row for row in touched.rows.values() if row.key in changed]
            await tx.behind(store.keep(tx, touched.kept))
            await settle(tx, in_key_order(live), rules, now=now, moves=moves, touched=touched)
        if receipt.dead and steps:
            await outbox.add(tx, FACTS, *wire.dead_letters(receipt.dead))
        if undo:
            raise _Undone
    if touched is not None:
        deps.recent.put(touched.rows.values())
    return receipt


def _overdue(row: Row, now: int) -> bool:
    """Whether a flip fell due and was not swept yet. Who catches up must save the row."""
    return row.next_flip_at is not None and row.next_flip_at <= now and not row.merged_into


async def catch_up(tx: Tx, rows: Iterable[Row], rules: Rules, now: int) -> list[Transition]:
    """The flips of overdue rows: they happened at their own instant, by time."""
    moves: list[Transition] = []
    for row in rows:
        await tx.stay()
        if _overdue(row, now):
            moves += await worked(tx, row, _caught_up, rules, now)
    return moves


async def worked(tx: Tx, row: Row, work: Callable[..., T], *args: Any) -> T:
    """`work(row, *args)`: beside the loop for who has a large state, with whom it may take longer than the server waits."""
    return await tx.during(asyncio.to_thread(work, row, *args)) if row.size > LARGE else work(row, *args)


def _caught_up(row: Row, rules: Rules, now: int) -> list[Transition]:
    """The flips of one row, in legs: a timeline ends after so many evaluations. Flips beyond the last leg count as of now."""
    moves: list[Transition] = []
    since: int | None = row.next_flip_at
    coming: Timeline | None = None
    for _ in range(MOST_LEGS):
        if since is None or since > now:
            break
        due = people.advance(row.profile, since)
        coming = rules.ruleset.timeline(
            row.profile, since, horizon_ms=now - since, most=64, key=row.key, known=coming, touched=due
        )
        for at, bits in [(since, coming.bits), *coming.flips]:
            moves += _moves(row, bits, rules, at=at, cause="time", source=None)
        since = coming.next_at
    people.advance(row.profile, now)
    row.coming = None
    return moves


def _fold(touched: Touched, incoming: Sequence[wire.Incoming], *, receipt: Receipt, now: int) -> None:
    """Fold every event into the row of its person, merging people at login."""
    rows = touched.rows
    for event in incoming:
        activity = event.activity
        for identity in event.identities:
            if identity not in rows:
                rows[identity] = store.unmet(identity, activity.website)
        if event.login is not None:
            _merge(touched, event.login, now=now)
        row = rows[event.identities[0]]
        if row.merged_into:
            row = touched.resolve(row.key)
        outcome = people.fold(row.profile, activity, now)
        receipt.outcomes[outcome] += 1
        if outcome in REFUSED:
            receipt.dead.append(wire.Dead(event.record, outcome.replace("_", "-"), REFUSED[outcome]))
        elif outcome != "duplicate":
            row.touched.add(activity.type)
            row.size += len(activity.props)
            touched.sources[row.key] = event
            touched.kept.append((row.key, now, activity))


def _merge(touched: Touched, login: tuple[str, str], *, now: int) -> None:
    """A visitor becomes known as a customer: the visitor's history moves, unless it already belongs to another one."""
    visitor, customer = touched.rows[login[0]], touched.resolve(login[1])
    if visitor.merged_into == customer.key or visitor is customer:
        return
    before = touched.resolve(visitor.key)
    if before is visitor:
        people.merge(customer.profile, visitor.profile, now)
        customer.size += visitor.size  # about, until it is saved
        visitor.profile, visitor.next_flip_at, visitor.coming = people.empty("visitor"), None, None
    # Readers may hold the document of the visitor, or of whose the visitor was, under a higher version: the next must win.
    customer.version = max(customer.version, visitor.version, before.version)
    visitor.merged_into, visitor.document = customer.key, None
    for row in (visitor, customer, before):
        row.names = []
        touched.merged.add(row.key)
    customer.coming = None
    touched.aliases[visitor.key] = customer.key


async def in_key_order(rows: Iterable[Row]) -> AsyncIterator[Row]:
    """So that workers never wait in a circle for people who are new to both."""
    for row in sorted(rows, key=lambda r: r.key):
        yield row


async def settle(
    tx: Tx,
    rows: AsyncIterable[Row],
    rules: Rules,
    *,
    now: int,
    moves: list[Transition] | None = None,
    touched: Touched | None = None,
) -> None:
    """Evaluate rows whose profile is up to date, and save them with their transitions, documents and facts.

    Each is asked for when the one before was evaluated, and may add to `moves`. The server saves a chunk meanwhile.
    """
    moves = [] if moves is None else moves
    fresh, chunk = list[Row](), list[Row]()
    async for row in rows:
        shown = row.document
        moves += await worked(tx, row, _evaluate, rules, now, touched)
        await tx.stay()
        if row.document != shown or (touched and row.key in touched.merged and not row.merged_into):
            fresh.append(row)
        chunk.append(row)
        if len(chunk) == CHUNK:
            await tx.behind(store.save(tx, chunk, now=now))
            chunk = []
    await tx.behind(store.save(tx, chunk, now=now))
    if touched and touched.aliases:  # after the people: whoever would name the same ones waits for those
        await identities.alias(tx, touched.aliases, since=now)
        strangers = await identities.let_go(tx, touched.rows, {*touched.aliases.values()})
        touched.merged.update(row.key for row in strangers)
        for row in strangers:
            moves += await worked(tx, row, _evaluate, rules, now, touched)
        await store.save(tx, strangers, now=now)
        fresh += strangers
    if moves:
        await tx.behind(store.record(tx, moves))
        await store.announce(tx, moves, rules.keys, now=now)
    if fresh:
        await identities.name(tx, fresh)
        shown_anew = [(r.names, r.version, r.document) for r in fresh]
        await outbox.add(tx, wire.AUDIENCE, *wire.audience(shown_anew, era=rules.era))


def _evaluate(row: Row, rules: Rules, now: int, touched: Touched | None) -> list[Transition]:
    """Bring a row to what the rules say now; answers what changed."""
    row.version += 1
    if row.merged_into:
        return _moves(row, 0, rules, at=now, cause="merge", source=None)
    began = thread_time()
    coming = rules.ruleset.timeline(
        row.profile, now, horizon_ms=rules.horizon_ms, key=row.key, known=row.coming, touched=row.touched
    )
    if thread_time() - began > SLOW_S:
        DEAR.inc()
        if not rules.told_dear:
            rules.told_dear[:] = _dearest(row, rules, now)
            log.warning("person_dear", rules=rules.told_dear)
    before, row.coming = row.coming, coming
    if before is None or before.flips is not coming.flips or not row.touched.isdisjoint(people.REGISTERS):
        row.next_flip_at = _wake(row, coming, rules, now)
        row.document = _document(row, coming, rules.epoch)
    row.touched.clear()
    if not (row.atoms ^ coming.bits) & rules.live_mask:
        row.atoms = coming.bits
        return []
    source = touched.sources.get(row.key) if touched else None
    cause = _cause(row, source, touched, now)
    return _moves(row, coming.bits, rules, at=now, cause=cause, source=source.event_id if source else None)


def _dearest(row: Row, rules: Rules, now: int) -> list[str]:
    """The rules that one person takes most time of, dearest first. They stay: their cost was weighed when they were saved."""
    spent = {}
    for key, program in rules.ruleset.alone():
        began = thread_time()
        program(Facts(row.profile, row.key), now)
        spent[key] = thread_time() - began
    return heapq.nlargest(3, spent, key=spent.__getitem__)


def _cause(row: Row, source: wire.Incoming | None, touched: Touched | None, now: int) -> str:
    if source is None:
        return "merge" if touched and row.key in touched.merged else "time"
    if source.login is not None and touched and row.key in touched.merged:
        return "merge"
    return "late_data" if now - source.activity.at > wire.LATE_MS else "event"


def _moves(row: Row, bits: int, rules: Rules, *, at: int, cause: str, source: str | None) -> list[Transition]:
    """Transitions from the row's bits to `bits`, for the atoms that are a live segment; leaves the new bits in the row."""
    changed = (row.atoms ^ bits) & rules.live_mask
    row.atoms = bits
    moves = []
    while changed:
        low = changed & -changed
        changed ^= low
        segment = rules.by_atom[low.bit_length() - 1]
        moves.append(Transition(row.key, segment.id, at, bool(bits & low), cause, segment.version, source))
    return moves


def _wake(row: Row, coming: Timeline, rules: Rules, now: int) -> int | None:
    """When somebody must look again: at a coming flip, when an event falls due, or well before the document stops covering.

    Never at once: until one of these, whoever looks again sees the same.
    """
    moments = [at for at, _ in coming.flips[:1]] + [activity.at for activity in row.profile.pending[:1]]
    if coming.next_at is not None and coming.next_at not in moments:
        before = coming.next_at - rules.lead_ms
        moments.append(before if before > now else coming.next_at)
    return min(moments, default=None)


def _document(row: Row, coming: Timeline, epoch: int) -> bytes:
    return wire.document(
        epoch,
        store.to_bytes(coming.bits),
        [(at, store.to_bytes(bits)) for at, bits in coming.flips],
        group=row.profile.group,
        consent=people.consent_flags(row.profile),
        covered_until=coming.next_at,
        customer=row.profile.kind == "customer",
    )
