"""Definitions of segments as stored, and the rule book: the compiled rules of the newest release.

A release is a version of everything that is evaluated. A batch shares a lock that a change of the definitions takes alone, so
once a change has committed, every later batch works by it.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from chassis import outbox
from chassis.beside import Beside
from chassis.clock import SKEW_MS, Clock
from chassis.db import CLOCK_MS, Database, Tx
from chassis.documents import FACTS, RELEASE
from chassis.health import Health
from chassis.problems import Problem

from segment_svc import wire
from segment_svc.domain.definition import Circle, Definition, renamed
from segment_svc.domain.ruleset import RuleRaised, RuleSet
from segment_svc.settings import Settings
from segment_svc.store import Row
from segment_svc.telemetry import QUARANTINED

HEAD, STAMPED = "SELECT version FROM release_head", "SELECT version, era, stamp FROM release_head"
# A database that went back has the same versions of something else; no stamp.
NEXT = "UPDATE release_head SET version = greatest(version, $1) + 1, stamp = gen_random_uuid() RETURNING version"
SINCE = "SELECT coalesce((SELECT at FROM release ORDER BY version DESC LIMIT 1), 0)"
READY_S = 0.5  # so long a reader waits for what is being compiled
# Advisory, because whoever waits for such a lock has a place in the queue: a change of the definitions, which wants it alone,
# is not passed by the batches that come after it, as it would be on a row.
LOCK = f"SELECT pg_advisory_xact_lock{{how}}({{number}}), {CLOCK_MS} AS now"
SHARE, ALONE = (LOCK.format(how=how, number=zlib.crc32(b"segment.release")) for how in ("_shared", ""))
DIGEST = "encode(sha256(convert_to(v.body::text, 'UTF8')), 'hex')"
PLANS = f"""SELECT s.id, s.key, p.version, p.atoms, p.epoch, p.since, p.live, p.cause, {DIGEST} AS digest FROM plan p
    JOIN segment s ON s.id = p.segment_id
    JOIN segment_version v ON v.segment_id = p.segment_id AND v.version = p.version WHERE NOT p.waiting ORDER BY s.id"""  # noqa: S608 - constants
BODIES = f"""SELECT {DIGEST} AS digest, v.body::text FROM plan p JOIN segment_version v USING (segment_id, version)
    WHERE NOT p.waiting AND NOT {DIGEST} = ANY($1::text[])"""  # noqa: S608 - constants
SHADOW_MARK = "@shadow"
UNREADABLE, CIRCLE = "cannot be read by this version of the service", "refers to itself through others"


@dataclass(frozen=True, slots=True)
class Live:
    """The live segment an atom stands for."""

    id: int
    version: int


@dataclass(frozen=True, slots=True)
class Rules:
    """One release, compiled. `live_mask` has the bits that are, by themselves, a live segment; `since` is when it began.
    `epoch` is the one atom numbers of documents written by it are of; `era`: the one documents are of; `stamp`: of it alone.

    `told_dear`: the rules the log has named, once, as taking long for somebody.
    """

    version: int
    ruleset: RuleSet
    live: tuple[Definition, ...]
    by_atom: dict[int, Live]
    keys: dict[int, str]
    live_mask: int
    horizon_ms: int
    lead_ms: int
    since: int = 0
    epoch: int = 0
    era: int = 0
    stamp: UUID | None = None
    told_dear: list[str] = field(default_factory=list)

    def instant(self, clock: Clock, rows: Iterable[Row]) -> int:
        """Now, for who holds the locks of rows: not before what was done to them or the rules. So no history goes back."""
        return not_before(clock, self.since, *(row.settled_at for row in rows))


class Release(NamedTuple):
    """One release as stored: all its plans, when and in which era it began, and its stamp."""

    version: int
    plans: Sequence[dict[str, Any]]
    since: int
    era: int
    stamp: UUID


def compile_rules(release: Release, settings: Settings, before: Rules | None) -> Rules:
    """Compile live and shadow plans into one set; shadow ones refer to each other, and are told apart by their key. What is as it
    was `before` is not read again.

    Raises RuleRaised for those that cannot be compiled. Quarantined ones are left out.
    """
    zone, plans = ZoneInfo(settings.time_zone), [plan for plan in release.plans if plan["cause"] is None]
    versions = {name: plan["version"] for name, plan, _ in named(plans)}
    try:
        found = {name: _definition(plan, name, condition) for name, plan, condition in named(plans)}
        ruleset = RuleSet.compile(list(found.values()), zone, before.ruleset if before else None)
    except Circle as circle:
        raise RuleRaised(dict.fromkeys(circle.keys, CIRCLE), versions) from None
    except Exception:  # saved by whatever version of this code, or by hand
        broken = [name for name, plan, condition in named(plans) if not _compiles(plan, name, condition, zone)]
        if not broken:
            raise
        raise RuleRaised(dict.fromkeys(broken, UNREADABLE), versions) from None
    live = tuple(d for name, d in found.items() if not name.endswith(SHADOW_MARK))
    by_atom = {d.atoms[0]: Live(d.id, d.version) for d in live if ruleset.is_durable(d.key)}
    return Rules(
        version=release.version,
        ruleset=ruleset,
        live=live,
        by_atom=by_atom,
        keys={p["id"]: p["key"] for p in plans},
        live_mask=sum(1 << atom for atom in by_atom),
        horizon_ms=settings.horizon_ms,
        lead_ms=settings.lead_ms,
        since=release.since,
        epoch=max((d.epoch for d in found.values()), default=0),
        era=release.era,
        stamp=release.stamp,
    )


def named(plans: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """(name, plan, condition) of each plan; shadow plans, and references of theirs to other shadow plans, have a mark."""
    marked = {p["key"]: p["key"] + SHADOW_MARK for p in plans if not p["live"]}
    for plan in plans:
        condition = plan["body"].get("condition")
        yield (
            (plan["key"], plan, condition) if plan["live"] else (marked[plan["key"]], plan, renamed(condition, marked))
        )


def _compiles(plan: dict[str, Any], name: str, condition: Any, zone: ZoneInfo) -> bool:
    try:
        RuleSet.compile([_definition(plan, name, condition)], zone)
    except Exception:
        return False
    return True


def _definition(plan: dict[str, Any], key: str, condition: Any) -> Definition:
    definition = as_definition(plan["id"], key, plan["version"], {**plan["body"], "condition": condition})
    return msgspec.structs.replace(definition, atoms=tuple(plan["atoms"]), epoch=plan["epoch"], since=plan["since"])


def as_definition(segment_id: int, key: str, version: int, body: dict[str, Any]) -> Definition:
    """The domain's form of a stored body."""
    return Definition(
        id=segment_id,
        key=key,
        version=version,
        applies_to=body["applies_to"],
        websites=tuple(body["websites"]),
        condition=body["condition"],
        overrides=tuple((o["profile"], o["include"], o["until"]) for o in body["overrides"]),
    )


class RuleBook:
    """Compiles a release once, beside the loop, and hands it out until a newer one is the head."""

    def __init__(self, settings: Settings, beside: Beside, clock: Clock, health: Health) -> None:
        self._settings, self._beside, self.zone = settings, beside, ZoneInfo(settings.time_zone)
        self._clock, self._health = clock, health
        self._rules: Rules | None = None
        self.highest = 0  # version that anybody here has seen
        self._bodies: dict[str, Any] = {}
        self._one = asyncio.Lock()

    async def current(self, tx: Tx) -> Rules:
        """The rules this transaction must work by; they do not change until it ends.

        Raises RuleRaised, see compile_rules, and ClockOff.
        """
        try:
            await _lock(tx, self._clock, SHARE)
        except ClockOff:
            self._health.trouble(
                "clock", f"differs from the database's by over {SKEW_MS // 1000} s: nothing is applied"
            )
            raise
        self._health.fine("clock")
        found = await self._read(tx)
        return found if isinstance(found, Rules) else await tx.during(self._compiled(found))

    async def latest(self, db: Database) -> Rules:
        """The rules of the newest release, for who only reads; those before, while compiling takes long. Raises RuleRaised."""
        async with db.tx() as tx:
            await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # the plans of that version
            found = await self._read(tx)
        if isinstance(found, Rules):
            return found
        compiling = asyncio.ensure_future(self._compiled(found))
        await asyncio.wait([compiling], timeout=None if self._rules is None else READY_S)
        if compiling.done() or self._rules is None:
            return await compiling
        compiling.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever asks next is told
        return self._rules

    async def _read(self, tx: Tx) -> Rules | Release:
        """The head: compiled when it is what we have."""
        version, era, stamp = await tx.fetchrow(STAMPED)
        self.seen(version)
        if self._rules is not None and self._rules.stamp == stamp:
            return self._rules
        plans = await read_plans(tx, self._bodies)
        return Release(version, plans, await tx.fetchval(SINCE), era, stamp)

    def seen(self, version: int) -> int:
        """This is the head, as readers are told."""
        self.highest = max(self.highest, version)
        return version

    async def _compiled(self, release: Release) -> Rules:
        async with self._one:
            if self._rules is None or self._rules.stamp != release.stamp:
                QUARANTINED.clear()
                for plan in release.plans:
                    if plan["live"] and plan["cause"]:
                        QUARANTINED.labels(segment=plan["key"]).set(1)
                self._rules = await self._beside.run("", compile_rules, release, self._settings, self._rules)
                self._bodies = {plan["digest"]: plan["body"] for plan in release.plans}
            return self._rules


async def head(tx: Tx) -> int:
    """The version of the newest release."""
    version: int = await tx.fetchval(HEAD)
    return version


async def era(tx: Tx) -> int:
    """Which era it is: one more each time the database went back."""
    found: int = await tx.fetchval("SELECT era FROM release_head")
    return found


async def read_plans(tx: Tx, known: Mapping[str, Any] = MappingProxyType({})) -> list[dict[str, Any]]:
    """Live and shadow plans, but those that wait, with their definitions (the `known` ones by digest), and why nobody is in them,
    if so (`cause`)."""
    bodies = {**known, **{r["digest"]: json.loads(r["body"]) for r in await tx.fetch(BODIES, list(known))}}
    return [{**r, "body": bodies[r["digest"]]} for r in await tx.fetch(PLANS)]


class ClockOff(Problem):
    """What is done by a clock that is wrong could not be taken back: nothing is until it is right again."""

    def __init__(self, ahead_ms: int) -> None:
        title = (
            f"The clock of this process is {abs(ahead_ms)} ms {'ahead of' if ahead_ms > 0 else 'behind'} the database's"
        )
        super().__init__("clock-off", 503, title, headers={"retry-after": "5"})


async def _lock(tx: Tx, clock: Clock, statement: str) -> None:
    """Take a lock on the definitions, which every change of people or of definitions begins with. Raises ClockOff."""
    ahead_ms = clock.ahead_of((await tx.fetchrow(statement))["now"])
    if abs(ahead_ms) > SKEW_MS:
        raise ClockOff(ahead_ms)


async def alone(tx: Tx, clock: Clock) -> int:
    """Wait for the batches in work and keep new ones from starting, before reading rules that are about to change.

    Answers now (epoch ms), which is not before any release began, by whosever clock. Raises ClockOff.
    """
    await _lock(tx, clock, ALONE)
    return not_before(clock, await tx.fetchval(SINCE))


def not_before(clock: Clock, *instants: int) -> int:
    """Now (epoch ms), but not before what was done by whosever clock, if that is within SKEW_MS of ours."""
    now = clock.now_ms()
    return min(max(now, *instants), now + SKEW_MS)


async def publish(tx: Tx, tags: Sequence[str], *, now: int, after: int) -> int:
    """Start a new release and tell readers through the outbox, for who is `alone`. Its version is `after` what anybody here has
    seen: the database may have gone back, and nobody who says so."""
    version: int = await tx.fetchval(NEXT, after)
    await tx.execute("INSERT INTO release VALUES ($1, $2, $3)", version, list(tags), now)
    await outbox.add(tx, RELEASE, b"%d" % version)
    await outbox.add(tx, FACTS, *wire.targeting_facts(version, tags, now=now))
    return version


GO_ON = """UPDATE release_head SET version = greatest(version, $1) + 1, era = greatest(era, $2) + 1,
    stamp = gen_random_uuid() RETURNING era"""


async def go_on_after(tx: Tx, version: int, era: int) -> int:
    """A database that went back (restored, or failed over to a standby that was behind) goes on after what readers have seen of
    it, in an era after theirs. Answers which.
    """
    found: int = await tx.fetchval(GO_ON, version, era)
    return found
