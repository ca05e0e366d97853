"""What a run left behind, held against the history: events, people, memberships, facts, documents."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from chassis.cache import open_redis
from chassis.clock import SystemClock
from contracts import topics
from history import CONDITIONS, KEPT, SPENDERS, History, hash_of
from rig import Rig
from segment_svc.app import adapters
from segment_svc.domain import profile as people
from segment_svc.flows import sweep


@dataclass
class Verdict:
    """`lost` and `double` are events; each of `wrong` says what else does not hold."""

    lost: int = 0
    double: int = 0
    deadlocks: int = 0
    refused: int = 0
    facts: int = 0
    names: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.wrong.append(otherwise)


async def judge(rig: Rig, made: History) -> Verdict:
    """Bring everything up to now, hand on what waits, and compare."""
    verdict = Verdict()
    async with adapters(rig.settings, clock=SystemClock()) as built:
        before = int(time.time() * 1000)
        while await sweep.sweep(built.deps):
            pass
        after = int(time.time() * 1000)
        await built.deps.relay.drain()
    verdict.expect(not await rig.waiting(), "the outbox is not empty")
    verdict.expect(not await rig.fetch("SELECT 1 FROM undeliverable"), "something was undeliverable")
    await _events(rig, made, verdict)
    await _memberships(rig, made, verdict, before, after)
    await _facts(rig, verdict)
    await _documents(rig, made, verdict)
    connection = await asyncpg.connect(rig.servers.postgres.url)
    name = rig.settings.database_url.rsplit("/", 1)[1]
    verdict.deadlocks = await connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = $1", name)
    await connection.close()
    return verdict


async def _events(rig: Rig, made: History, verdict: Verdict) -> None:
    """Applied and dead-lettered are what was sent; what a person keeps is the newest of what was applied, the rest is counted."""
    hashes = {hash_of(name): name for name in made.did}
    applied = Counter(row["id_hash"] for row in await rig.fetch("SELECT id_hash FROM activity"))
    verdict.expect(applied.keys() <= hashes.keys(), "something was applied that nobody did")
    letters = await rig.read(*(f"{topic}.dlq" for topic in topics.INPUT))
    reasons = {dict(letter.headers)["dlq-reason"] for letter in letters}
    verdict.expect(reasons <= {b"too-old"}, f"dead letters for {reasons}")
    dead = {json.loads(letter.value or b"")["id"] for letter in letters}
    done = {hashes[h] for h in applied if h in hashes}
    verdict.refused = len(dead - done)
    verdict.lost = len(made.did.keys() - done - dead)
    verdict.double = applied.total() - len(applied) + len((dead & done) - made.repeated)

    kept: dict[tuple[str, str], tuple[list[int], int]] = {}
    for row in await rig.fetch("SELECT profile, state FROM profile WHERE merged_into IS NULL"):
        person = people.decode(row["state"])
        for kind, log in person.log.items():
            kept[row["profile"], kind] = list(log.ids), person.dropped.get(kind, (0, 0))[0]
    wanted = defaultdict(list)
    for name in done:
        wanted[made.person(made.did[name].who), made.did[name].kind].append((made.did[name].at, hash_of(name)))
    for whose, entries in wanted.items():
        ids, dropped = kept.pop(whose, ([], 0))
        newest = [h for _, h in sorted(entries)[-KEPT:]]
        difference = len(ids) + dropped - len(entries)
        verdict.lost += max(0, -difference)
        verdict.double += max(0, difference)
        verdict.expect(ids == newest, f"{whose} does not keep the newest of what was applied")
    verdict.expect(not kept, f"people with a past they do not have: {list(kept)[:3]}")
    for name in dead:
        d = made.did[name]
        entries = sorted(wanted[made.person(d.who), d.kind])[-KEPT:]
        too_old = len(entries) == KEPT and d.at <= entries[0][0]
        verdict.expect(too_old, f"{name} was refused without need")


async def _memberships(rig: Rig, made: History, verdict: Verdict, before: int, after: int) -> None:
    rows = await rig.fetch("SELECT s.key, m.profile FROM membership m JOIN segment s ON s.id = m.segment_id")
    for key in CONDITIONS:
        unknown = made.beyond_money() if key == SPENDERS else set()
        found = {row["profile"] for row in rows if row["key"] == key} - unknown
        early, late = made.members(key, before) - unknown, made.members(key, after) - unknown
        verdict.expect(bool(late), f"the history must have members of {key}")
        verdict.expect(early & late <= found, f"{len((early & late) - found)} missing from {key}")
        verdict.expect(found <= early | late, f"{len(found - early - late)} too many in {key}")


async def _facts(rig: Rig, verdict: Verdict) -> None:
    """Every transition left as one fact; one sent again has the same id."""
    facts = {}
    for record in await rig.read(topics.SEGMENT_MEMBERSHIP):
        fact = json.loads(record.value or b"")
        facts[fact["id"]] = fact["data"]
    told = Counter(
        (f["profile"], f["segment"], int(f["atMs"]), f["entered"], f["cause"], f["sourceEvent"]) for f in facts.values()
    )
    rows = await rig.fetch(
        """SELECT t.profile, s.key, t.at, t.entered, t.cause, coalesce(t.source_event, '') AS source_event
           FROM transition t JOIN segment s ON s.id = t.segment_id"""
    )
    wanted = Counter(tuple(row) for row in rows)
    verdict.facts = len(facts)
    verdict.expect(told == wanted, f"{(wanted - told).total()} facts lost, {(told - wanted).total()} too many")


async def _documents(rig: Rig, made: History, verdict: Verdict) -> None:
    """Every name of a person has the document of the person; a name belongs to whom the logins gave it."""
    rows = await rig.fetch("SELECT profile, identity FROM identity")
    verdict.expect({r["identity"]: r["profile"] for r in rows} == made.owners, "the names are not whose the logins say")
    names = defaultdict(list)
    for device, customer in made.owners.items():
        names[customer].append(device)
    found: Any = await rig.fetch("SELECT profile, version, document FROM profile WHERE merged_into IS NULL")
    verdict.expect({row["profile"] for row in found} == made.people(), "the people are not those of the history")
    redis = open_redis(rig.settings.redis_url)
    for row in found:
        for name in (row["profile"], *names[row["profile"]]):
            shown = await redis.get(f"aud:{name}") or bytes(8)
            verdict.names += 1
            verdict.expect(shown[8:] == row["document"], f"{name} is shown another document than the person's")
            # A row that was touched without a change for readers is newer than what they have, never older.
            version = int.from_bytes(shown[:8], "big")
            verdict.expect(0 < version <= row["version"], f"{name} is shown version {version} of {row['version']}")
    await redis.aclose()
