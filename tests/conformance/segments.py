"""Segment cases: definitions and events through the real flows on a real database, or (pure) through the domain alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import msgspec
from chassis.clock import ManualClock
from chassis.problems import Problem
from segment_svc import definitions, store
from segment_svc.domain import profile as people
from segment_svc.domain.activity import Activity, pack
from segment_svc.domain.ruleset import RuleSet, plan_atoms
from segment_svc.flows import backfill, sweep
from segment_svc.flows.apply_events import apply_events
from segment_svc.flows.save_segment import Change, delete_segment, save_segment
from segment_svc.wire import Incoming

from tests.conformance.report import Report, Unsupported

APPLIES = {"any": "both", "registered": "customers", "visitor": "visitors"}
NOBODY = {"events": {"type": "never.happens", "count": {"op": "gt", "value": 0}}}


class Driver(Protocol):
    """The product as a case sees it. Profile keys are the product's (v:... or c:...)."""

    async def at(self, now_ms: int) -> None: ...
    async def define(self, key: str, body: dict[str, Any]) -> None: ...
    async def delete(self, key: str) -> None: ...
    async def event(self, identity: str, activity: Activity, login: tuple[str, str] | None) -> None: ...
    async def members(self, key: str) -> set[str]: ...
    async def enters(self, key: str) -> dict[str, int]: ...


class Refused(Exception):
    """The definition was refused."""


def instant(text: str) -> int:
    """Epoch ms of a case's time; one without a zone is UTC."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


class Database:
    """The real flows: save, backfill, apply, sweep."""

    def __init__(self, deps: Any, clock: ManualClock) -> None:
        self._deps, self._clock = deps, clock
        self._versions: dict[str, int] = {}

    async def at(self, now_ms: int) -> None:
        self._clock.set(now_ms)

    async def define(self, key: str, body: dict[str, Any]) -> None:
        try:
            saved = await save_segment(self._deps, Change(key, body, self._versions.get(key), "case"))
        except Problem as problem:
            raise _refusal(problem) from None
        self._versions[key] = saved.version
        while await backfill.step(self._deps):
            pass

    async def delete(self, key: str) -> None:
        await delete_segment(self._deps, key, expected=self._versions.pop(key))

    async def event(self, identity: str, activity: Activity, login: tuple[str, str] | None) -> None:
        identities = (identity,) if login is None else (login[1], login[0])
        await apply_events(self._deps, [Incoming(str(activity.id_hash), identities, activity, login)])

    async def members(self, key: str) -> set[str]:
        while await sweep.sweep(self._deps):
            pass
        async with self._deps.db.tx() as tx:
            rows = await tx.fetch(
                "SELECT m.profile FROM membership m JOIN segment s ON s.id = m.segment_id WHERE s.key = $1", key
            )
            names = await store.identities(tx, [r["profile"] for r in rows])
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
    """The domain alone: fold, evaluate at the instant asked for."""

    def __init__(self) -> None:
        self._now = 0
        self._bodies: dict[str, dict[str, Any]] = {}
        self._people: dict[str, people.Profile] = {}
        self._into: dict[str, str] = {}
        self._inside: dict[str, set[str]] = {}
        self._enters: dict[str, dict[str, int]] = {}

    def _definitions(self) -> list[Any]:
        return [
            definitions.as_definition(i, k, 1, b)
            for i, (k, b) in enumerate(self._bodies.items())
            if b["status"] == "active"
        ]

    def _compiled(self) -> RuleSet:
        count = iter(range(10_000))
        made = []
        for definition in self._definitions():
            atoms = plan_atoms(definition, ZoneInfo("UTC"), lambda: next(count))
            made.append(msgspec.structs.replace(definition, atoms=atoms))
        return RuleSet.compile(made)

    async def at(self, now_ms: int) -> None:
        for person in self._people.values():
            people.advance(person, now_ms)
        self._now = now_ms

    async def define(self, key: str, body: dict[str, Any]) -> None:
        before = dict(self._bodies)
        self._bodies[key] = body
        faults = RuleSet.check(self._definitions(), key) if body["status"] == "active" else []
        if faults:
            self._bodies = before
            raise _fault(faults[0].code, faults[0].detail)

    async def delete(self, key: str) -> None:
        del self._bodies[key]

    async def event(self, identity: str, activity: Activity, login: tuple[str, str] | None) -> None:
        for name in (identity, *(login or ())):
            self._people.setdefault(name, people.empty("customer" if name.startswith("c:") else "visitor"))
        if login is not None and login[0] not in self._into:
            people.merge(self._people[login[1]], self._people.pop(login[0]), self._now)
            self._into[login[0]] = login[1]
        person = self._people.get(self._into.get(identity, identity))
        if person is not None:
            people.fold(person, activity, self._now)

    async def members(self, key: str) -> set[str]:
        rules = self._compiled()
        if key not in rules.bits:
            if key in rules.residuals:
                raise Unsupported("request context in a case")
            return set()
        bit = rules.bits[key]
        found = {
            name for name, person in self._people.items()
            if rules.timeline(person, self._now, horizon_ms=0, key=name).bits >> bit & 1
        }  # fmt: skip
        return found | {name for name, into in self._into.items() if into in found}

    async def enters(self, key: str) -> dict[str, int]:
        raise Unsupported("enter_count without a database")


def _refusal(problem: Problem) -> Exception:
    detail = problem.errors[0]["detail"] if problem.errors else problem.title
    return _fault("unknown-condition" if "is not a condition" in detail else "refused", detail)


def _fault(code: str, detail: str) -> Exception:
    if code == "unknown-condition":
        return Unsupported(detail.split(" is not")[0].strip("'") + " condition")
    return Refused(detail)


class Case:
    """One case being played."""

    def __init__(self, raw: Mapping[str, Any], driver: Driver) -> None:
        self._raw, self._driver = raw, driver
        self._kinds: dict[str, str] = {}
        self._sent: list[Mapping[str, Any]] = []

    def _key(self, name: str) -> str:
        return ("c:" if self._kinds.get(name) == "registered" else "v:") + name

    async def play(self) -> str:
        """Play the steps; answers how it differed, or nothing."""
        first = instant(self._raw["steps"][0]["at"])
        await self._driver.at(first)
        for profile in self._raw.get("profiles", []):
            await self._profile(profile, first)
        for segment in self._raw.get("segments", []):
            await self._driver.define(segment["key"], self._body(segment))
        for number, step in enumerate(self._raw["steps"]):
            await self._driver.at(instant(step["at"]))
            difference = await self._step(step)
            if difference:
                return f"step {number}: {difference}"
        return ""

    async def _profile(self, profile: Mapping[str, Any], at: int) -> None:
        self._kinds[profile["key"]] = profile["kind"]
        attributes = dict(profile.get("attributes") or {})
        if profile.get("registered_at"):
            attributes.setdefault("registered_at", profile["registered_at"])
        start = instant(profile["registered_at"]) if profile.get("registered_at") else at - 1
        event = {"id": f"profile-{profile['key']}", "type": "identify", "props": attributes}
        await self._send(profile["key"], event, min(start, at))

    async def _send(self, name: str, event: Mapping[str, Any], at: int) -> None:
        props = dict(event.get("props") or {})
        digest = hashlib.blake2b(str(event["id"]).encode(), digest_size=8).digest()
        website = str(props.get("website") or "main")
        if event["type"] == "identify":
            props = {"attributes": props}
        activity = Activity(int.from_bytes(digest, "big", signed=True), event["type"], at, website, pack(props))
        await self._driver.event(self._key(name), activity, None)

    def _body(self, segment: Mapping[str, Any]) -> dict[str, Any]:
        include = list(segment.get("always_include") or [])
        if segment.get("kind") == "manual":
            include += segment.get("list") or []
        picked = [(name, True) for name in include] + [(name, False) for name in segment.get("always_exclude") or []]
        overrides = [{"profile": self._key(n), "include": i, "until": None, "reason": "case"} for n, i in picked]
        return {
            "name": segment["key"],
            "description": "",
            "owner": "",
            "websites": [segment["website"]] if segment.get("website") else [],
            "status": "active" if segment.get("active", True) else "inactive",
            "applies_to": APPLIES[segment.get("applies_to", "any")],
            "condition": segment.get("condition") or NOBODY,
            "overrides": overrides,
        }

    async def _step(self, step: Mapping[str, Any]) -> str:
        match step["do"]:
            case "event":
                self._sent.append(step["event"])
                await self._send(step["event"]["profile"], step["event"], instant(step["event"]["occurred_at"]))
            case "redeliver":
                event = self._sent[step["event_index"] - 1]
                await self._send(event["profile"], event, instant(event["occurred_at"]))
            case "define":
                await self._driver.define(step["segment"]["key"], self._body(step["segment"]))
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
            case other:
                raise Unsupported(f"step {other}")
        return ""

    async def _rejected(self, segment: Mapping[str, Any]) -> str:
        try:
            await self._driver.define(segment["key"], self._body(segment))
        except Refused:
            return ""
        return f"{segment['key']} was not refused"

    async def _merge(self, source: str, into: str, at: int) -> None:
        visitor, customer = self._key(source), self._key(into)
        if not visitor.startswith("v:") or not customer.startswith("c:"):
            raise Unsupported("a merge of two profiles of one kind")
        digest = hashlib.blake2b(f"merge {source} {into}".encode(), digest_size=8).digest()
        activity = Activity(int.from_bytes(digest, "big", signed=True), "login", at, "main", pack({}))
        await self._driver.event(customer, activity, (visitor, customer))

    async def _expect(self, step: Mapping[str, Any]) -> str:
        for key, wanted in (step.get("members") or {}).items():
            found = await self._driver.members(key)
            for name in wanted.get("in") or []:
                if self._key(name) not in found:
                    return f"{name} should be in {key}"
            for name in wanted.get("out") or []:
                if self._key(name) in found:
                    return f"{name} should be out of {key}"
        for key, counts in (step.get("enter_count") or {}).items():
            entered = await self._driver.enters(key)
            for name, count in counts.items():
                if entered.get(self._key(name), 0) != count:
                    return f"{name} entered {key} {entered.get(self._key(name), 0)} times, not {count}"
        return ""


async def run(cases: list[dict[str, Any]], new_driver: Any) -> Report:
    """Play every case on a driver of its own."""
    report = Report()
    for raw in cases:
        async with new_driver(raw) as driver:
            try:
                difference = await Case(raw, driver).play()
                report.add(raw["id"], raw.get("tags", []), "failed" if difference else "passed", difference)
            except Unsupported as lacking:
                report.add(raw["id"], raw.get("tags", []), "unsupported", str(lacking))
            except Refused as refused:
                report.add(raw["id"], raw.get("tags", []), "failed", f"a definition was refused: {refused}")
    return report
