"""Segment cases: definitions and events through the real flows on a real database, or (pure) through the domain alone.

A case is translated (translate.py) and played to its end; every difference of it is told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import msgspec
from chassis.auth import Actor
from chassis.bus import Record
from chassis.clock import ManualClock
from chassis.problems import Problem
from contracts.codec import Codec
from segment_svc import definitions, identities, wire
from segment_svc.domain import profile as people
from segment_svc.domain.checks import among, check
from segment_svc.domain.part import atoms_needed
from segment_svc.domain.ruleset import RuleSet
from segment_svc.flows import backfill, sweep
from segment_svc.flows.apply_events import apply_events
from segment_svc.flows.save_segment import Change, delete_segment, save_segment
from segment_svc.wire import Incoming

from tests.conformance import translate
from tests.conformance.report import Report, Unsupported
from tests.conformance.translate import instant

ACTOR = Actor("case", "marketer")
NEEDS_DATABASE = "without a database"


class Driver(Protocol):
    """The product as a case sees it. Profile keys are the product's (v:... or c:...)."""

    async def at(self, now_ms: int) -> None: ...
    async def define(self, key: str, body: dict[str, Any]) -> None: ...
    async def delete(self, key: str) -> None: ...
    async def event(self, event: Incoming) -> None: ...
    async def members(self, key: str) -> set[str]: ...
    async def enters(self, key: str) -> dict[str, int]: ...


class Refused(Exception):
    """The product refused a definition or an event."""


class Database:
    """The real flows: save, backfill, apply, sweep."""

    def __init__(self, deps: Any, clock: ManualClock) -> None:
        self._deps, self._clock = deps, clock
        self._versions: dict[str, int] = {}

    async def at(self, now_ms: int) -> None:
        self._clock.set(now_ms)

    async def define(self, key: str, body: dict[str, Any]) -> None:
        try:
            saved = await save_segment(self._deps, Change(key, body, self._versions.get(key), ACTOR))
        except Problem as problem:
            raise _refusal([e["detail"] for e in problem.errors] or [problem.title]) from None
        self._versions[key] = saved.version
        while await backfill.step(self._deps):
            pass

    async def delete(self, key: str) -> None:
        await delete_segment(self._deps, key, expected=self._versions.pop(key), actor=ACTOR)

    async def event(self, event: Incoming) -> None:
        if (await apply_events(self._deps, [event])).dead:
            raise Refused(f"event {event.event_id} was refused")

    async def members(self, key: str) -> set[str]:
        while await sweep.sweep(self._deps):
            pass
        async with self._deps.db.tx() as tx:
            rows = await tx.fetch(
                "SELECT m.profile FROM membership m JOIN segment s ON s.id = m.segment_id WHERE s.key = $1", key
            )
            names = await identities.names_of(tx, [r["profile"] for r in rows])
        return {name for found in names.values() for name in found}

    async def enters(self, key: str) -> dict[str, int]:
        await self.members(key)
        async with self._deps.db.tx() as tx:
            rows = await tx.fetch(
                """SELECT t.profile, count(*) AS n FROM transition t JOIN segment s ON s.id = t.segment_id
                   WHERE s.key = $1 AND t.entered GROUP BY t.profile""",
                key,
            )
        return {r["profile"]: r["n"] for r in rows}


class Pure:
    """The domain alone: fold, evaluate at the instant asked for. People who become one need a database."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._now, self._zone = 0, zone
        self._bodies: dict[str, dict[str, Any]] = {}
        self._people: dict[str, people.Profile] = {}

    def _definitions(self) -> list[Any]:
        bodies = [(key, body) for key, body in self._bodies.items() if body["status"] == "active"]
        return [definitions.as_definition(i, key, 1, body) for i, (key, body) in enumerate(bodies)]

    async def at(self, now_ms: int) -> None:
        for person in self._people.values():
            people.advance(person, now_ms)
        self._now = now_ms

    async def define(self, key: str, body: dict[str, Any]) -> None:
        before, self._bodies = self._bodies, {**self._bodies, key: body}
        faults = self._faults(key) if body["status"] == "active" else []
        if faults:
            self._bodies = before
            raise _refusal([fault.detail for fault in faults])

    def _faults(self, key: str) -> list[Any]:
        made = self._definitions()
        return check(next(d for d in made if d.key == key), self._zone) or among(made, key)

    async def delete(self, key: str) -> None:
        del self._bodies[key]

    async def event(self, event: Incoming) -> None:
        if event.login is not None:
            raise Unsupported(f"a merge {NEEDS_DATABASE}")
        name = event.identities[0]
        person = self._people.setdefault(name, people.empty("customer" if name.startswith("c:") else "visitor"))
        if people.fold(person, event.activity, self._now).startswith("too_"):
            raise Refused(f"event {event.event_id} was refused")

    async def members(self, key: str) -> set[str]:
        numbers = iter(range(10_000))
        made = [
            msgspec.structs.replace(d, atoms=tuple(islice(numbers, atoms_needed(d, self._zone))))
            for d in self._definitions()
        ]
        rules = RuleSet.compile(made, self._zone)
        bit = rules.bits.get(key)
        if bit is None:
            return set()
        timelines = {n: rules.timeline(p, self._now, horizon_ms=0, key=n) for n, p in self._people.items()}
        return {name for name, timeline in timelines.items() if timeline.bits >> bit & 1}

    async def enters(self, key: str) -> dict[str, int]:
        raise Unsupported(f"enter_count {NEEDS_DATABASE}")


def _refusal(details: list[str]) -> Exception:
    missing = [d for d in details if "is not a condition" in d]
    return (
        Unsupported(missing[0].split(" is not")[0].strip("'") + " condition")
        if missing
        else Refused("; ".join(details))
    )


class Case:
    """One case being played."""

    def __init__(self, raw: Mapping[str, Any], driver: Driver) -> None:
        self._raw, self._driver, self._codec = raw, driver, Codec()
        self._kinds: dict[str, str] = {}
        self._sent: list[Mapping[str, Any]] = []
        self._defined: set[str] = set()
        self._now = 0

    def _key(self, name: str) -> str:
        return ("c:" if self._kinds.get(name) == "registered" else "v:") + name

    async def play(self) -> list[str]:
        """Play all the steps; answers every difference."""
        translate.known(self._raw)
        first = instant(self._raw["steps"][0]["at"])
        await self._at(first)
        for profile in self._raw.get("profiles") or []:
            await self._profile(profile, first)
        for segment in self._raw.get("segments") or []:
            await self._define(segment)
        found: list[str] = []
        for number, step in enumerate(self._raw["steps"]):
            await self._at(instant(step["at"]))
            found += [f"step {number}: {difference}" for difference in await self._step(step)]
        return found

    async def _at(self, now_ms: int) -> None:
        self._now = now_ms
        await self._driver.at(now_ms)

    async def _define(self, segment: Mapping[str, Any]) -> None:
        self._defined.add(segment["key"])
        await self._driver.define(segment["key"], translate.body(segment, self._key))

    async def _profile(self, profile: Mapping[str, Any], at: int) -> None:
        self._kinds[profile["key"]] = profile["kind"]
        attributes = dict(profile.get("attributes") or {})
        start = at - 1
        if profile.get("registered_at"):
            attributes.setdefault("registered_at", profile["registered_at"])
            start = min(instant(profile["registered_at"]), at)
        await self._send(
            profile["key"], {"id": f"profile-{profile['key']}", "type": "identify", "props": attributes}, start
        )

    async def _send(self, name: str, event: Mapping[str, Any], at: int) -> None:
        kind = "customer" if self._key(name).startswith("c:") else "visitor"
        await self._deliver(translate.record(f"{kind}:{name}", event, at))

    async def _deliver(self, record: Record) -> None:
        """Through the codec and its checks, as the consumer does it."""
        incoming, dead = wire.decode(self._codec, [record], now=self._now)
        for letter in dead:
            raise Refused(f"an event was refused: {letter.reason}: {letter.detail}")
        for event in incoming:
            await self._driver.event(event)

    async def _step(self, step: Mapping[str, Any]) -> list[str]:
        match step["do"]:
            case "event":
                self._sent.append(step["event"])
                await self._send(step["event"]["profile"], step["event"], instant(step["event"]["occurred_at"]))
            case "redeliver":
                event = self._sent[step["event_index"] - 1]
                await self._send(event["profile"], event, instant(event["occurred_at"]))
            case "define":
                await self._define(step["segment"])
            case "define_rejected":
                return await self._rejected(step["segment"])
            case "delete":
                await self._driver.delete(step.get("segment") or step["key"])
            case "profile":
                await self._profile(step["profile"], instant(step["at"]))
            case "merge":
                await self._merge(step["from"], step["into"], instant(step["at"]))
            case "expect":
                return await self._expect(step)
        return []

    async def _rejected(self, segment: Mapping[str, Any]) -> list[str]:
        try:
            await self._driver.define(segment["key"], translate.body(segment, self._key))
        except Refused:
            return []
        return [f"{segment['key']} was not refused"]

    async def _merge(self, source: str, into: str, at: int) -> None:
        if self._kinds.get(source) == "registered" or self._kinds.get(into) != "registered":
            raise Unsupported("a merge of two profiles of one kind")
        props = {"visitor_id": source, "customer_id": into}
        await self._send(into, {"id": f"merge {source} {into}", "type": "login", "props": props}, at)

    async def _expect(self, step: Mapping[str, Any]) -> list[str]:
        differences = []
        wanted, counts = step.get("members") or {}, step.get("enter_count") or {}
        for key in {**wanted, **counts}:
            if key not in self._defined:
                raise Unsupported(f"an expectation of {key}, which is no segment")
        for key, people_wanted in wanted.items():
            found = await self._driver.members(key)
            for side, inside in (("in", True), ("out", False)):
                names = people_wanted.get(side) or []
                differences += [
                    f"{name} should be {side} {key}" for name in names if (self._key(name) in found) != inside
                ]
        for key, expected in counts.items():
            entered = await self._driver.enters(key)
            for name, count in expected.items():
                times = entered.get(self._key(name), 0)
                if times != count:
                    differences.append(f"{name} entered {key} {times} times, not {count}")
        return differences


NewDriver = Callable[[dict[str, Any]], AbstractAsyncContextManager[Driver]]


@asynccontextmanager
async def pure(raw: dict[str, Any]) -> AsyncIterator[Driver]:
    """The domain alone."""
    yield Pure(ZoneInfo(raw.get("timezone") or "UTC"))


async def run(cases: list[dict[str, Any]], new_driver: NewDriver) -> Report:
    """Play every case on a driver of its own."""
    report = Report()
    for raw in cases:
        async with new_driver(raw) as driver:
            try:
                differences = await Case(raw, driver).play()
                report.add(
                    raw["id"], raw.get("tags", []), "failed" if differences else "passed", "; ".join(differences)
                )
            except Unsupported as lacking:
                report.add(raw["id"], raw.get("tags", []), "unsupported", str(lacking))
            except Refused as refused:
                report.add(raw["id"], raw.get("tags", []), "failed", f"refused: {refused}")
    return report
