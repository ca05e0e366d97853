"""A shop that is published to, and people who ask it, behind real edges and gateways; and what the oracle says to each answer."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from devstack.stack import Stack
from oracle import Audience, History, Shown, State, View

STALL_S, SETTLED_S = 2.5, 60
SLOTS = ("one", "two", "three", "four")
ATTRIBUTES = ("gold", "busy", "local")  # durable segments, by the attribute of that name
ASKED = {
    "bavaria": {"context": "region", "op": "eq", "value": "BY"},
    "members": {"context": "logged_in", "op": "eq", "value": True},
}
SEGMENTS = (*ATTRIBUTES, *ASKED)
GROUPS, VALUES = ("guest", "trade"), ("yes", "no")
KEYS = tuple(f"b{n}" for n in range(8))
RULES = ("r0", "r1", "r2")


@dataclass
class Person:
    """Somebody with what they have of the shop. `held` is what they are, `context` when their cookie was made."""

    name: str
    customer: bool
    held: History[View]
    attributes: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)
    context: tuple[float, float] | None = None


@dataclass
class World:
    """`doors`: edges and gateways by name. `stopped`: who changes something holds off what would lose it, by what it needs."""

    stack: Stack
    doors: dict[str, str]
    seed: int
    people: list[Person] = field(default_factory=list)
    stopped: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def __post_init__(self) -> None:
        self.chance, self.numbers = random.Random(self.seed), itertools.count(1)
        self.state = History(State(), time.monotonic())
        self.versions: dict[tuple[str, str], int] = {}
        timeout = httpx.Timeout(20.0)
        self.admin = httpx.AsyncClient(
            base_url=f"{self.stack.url}/admin/v1", headers={"x-api-key": self.stack.secrets.admin}, timeout=timeout
        )
        self.server = httpx.AsyncClient(
            base_url=self.stack.url, headers={"x-api-key": self.stack.secrets.secret}, timeout=timeout
        )
        self.browser = httpx.AsyncClient(headers={"x-api-key": self.stack.secrets.publishable}, timeout=timeout)
        self.turn = asyncio.Lock()  # changes of who is what come one after the other
        self.values = dict.fromkeys(ATTRIBUTES, "yes")  # that one must have to be in a segment

    # What the shop is made of

    async def open(self) -> None:
        """Slots, segments and people, and nothing to show."""
        for slot in SLOTS:
            await self._made("slots", key=slot, title=slot, default=words("default"))
        for name in ATTRIBUTES:
            await self._made("segments", key=name, name=name, status="active", condition=self._condition(name))
        for name, condition in ASKED.items():
            await self._made("segments", key=name, name=name, status="active", condition=condition)
        while any(s["live_version"] is None for s in (await self.admin.get("/segments")).json()["segments"]):
            await asyncio.sleep(0.05)
        now_s = time.monotonic()
        for n in range(9):
            self.people.append(Person(f"p{n}", n > 5, History(View(frozenset()), now_s)))
        for person in self.people:
            if not person.customer:
                await self.refresh(person)
        for _ in range(12):
            await self.publish()

    async def _made(self, noun: str, **body: Any) -> None:
        found = await self.admin.post(f"/{noun}", json=body)
        assert found.status_code == 201, found.text

    # What merchants do

    async def publish(self) -> None:
        """A block or rule as it comes."""
        kind = self.chance.choice(("blocks", "blocks", "cart-rules"))
        key, word = self.chance.choice(KEYS if kind == "blocks" else RULES), f"w{next(self.numbers)}"
        pick = lambda most: frozenset(self.chance.sample(SEGMENTS, self.chance.randint(0, most)))  # noqa: E731
        any_of, all_of, none_of = pick(2), pick(1), pick(1)
        groups = frozenset(g for g in GROUPS if self.chance.random() < 0.15)
        ends = int(time.time() * 1000) + self.chance.randint(2000, 8000) if self.chance.random() < 0.2 else None
        slots = frozenset(self.chance.sample(SLOTS, self.chance.randint(1, 3))) if kind == "blocks" else frozenset()
        priority, live = self.chance.randint(0, 5), self.chance.random() < 0.8
        one = Shown(word, Audience(any_of, all_of, none_of, groups), slots, priority, ends, live)
        segments = {"any_of": sorted(any_of), "all_of": sorted(all_of), "none_of": sorted(none_of)}
        body: dict[str, Any] = {"status": "live" if live else "draft", "priority": priority, "ends_at": ends}
        if kind == "blocks":
            audience = {**segments, "groups": sorted(groups)}
            body |= {"title": word, "slots": sorted(slots), "audience": audience, "content": words(word)}
        else:
            action = {"type": "percent", "value": 10}
            body |= {"name": word, "label": word, "segments": segments, "action": action}
            body |= {"groups": sorted(groups), "all_groups": not groups}
        await self._save(kind, key, body, one)

    async def _save(self, kind: str, key: str, body: dict[str, Any] | None, one: Shown | None) -> None:
        known = self.versions.get((kind, key))
        if body is None and known is None:
            return
        asked_s = time.monotonic()
        headers = {} if known is None else {"if-match": f'"{known}"'}
        services = (
            ["content_svc"] if kind == "blocks" else ["promo_svc", "segment_svc"]
        )  # of a rule's segments is asked
        async with AsyncExitStack() as held:
            for service in services:
                await held.enter_async_context(self.stopped[service])
            if body is None:
                found = await self.admin.delete(f"/{kind}/{key}", headers=headers)
            elif known is None:
                found = await self.admin.post(f"/{kind}", json={"key": key, **body})
            else:
                found = await self.admin.put(f"/{kind}/{key}", json=body, headers=headers)
        answered_s = time.monotonic()
        assert found.status_code in (200, 201, 204), found.text
        if body is None:
            del self.versions[kind, key]
        else:
            self.versions[kind, key] = found.json()["version"]
        self._changed(kind, key, one, asked_s=asked_s, answered_s=answered_s)

    def _changed(self, kind: str, key: str, one: Shown | None, *, asked_s: float, answered_s: float) -> None:
        name = "blocks" if kind == "blocks" else "rules"
        found = {**getattr(self.state.value, name)}
        found.pop(key, None)
        if one is not None:
            found[key] = one
        state = replace(self.state.value, **{name: found})
        self.state.change(state, asked_s=asked_s, answered_s=answered_s)

    async def remove(self) -> None:
        """A block or rule is deleted."""
        kind = self.chance.choice(("blocks", "cart-rules"))
        await self._save(kind, self.chance.choice(KEYS if kind == "blocks" else RULES), None, None)

    async def kill(self) -> None:
        """A block, rule or slot is killed; what its owner switched off is off in itself, too."""
        kind = self.chance.choice(("block", "block", "rule", "slot"))
        key = self.chance.choice({"block": KEYS, "rule": RULES, "slot": SLOTS}[kind])
        asked_s = time.monotonic()
        async with self.stopped["redis"]:
            found = (await self.admin.post("/kills", json={"kind": kind, "key": key})).raise_for_status().json()
        answered_s = time.monotonic()
        state = self.state.value
        noun, name = {"block": ("blocks", "blocks"), "rule": ("cart-rules", "rules")}.get(kind, ("", ""))
        if found["owner"] == "away":  # it may switch it off when it goes on, and is asked again
            await asyncio.sleep(STALL_S + 0.5)
            while await self._is_owed(kind, key):
                await asyncio.sleep(0.2)
        if found["owner"] in ("disabled", "away") and (noun, key) in self.versions:
            async with self.stopped["content_svc" if kind == "block" else "promo_svc"]:
                stored = (await self.admin.get(f"/{noun}/{key}")).raise_for_status().json()
            self.versions[noun, key] = stored["version"]
            live = {**getattr(state, name)}
            live[key] = live[key]._replace(live=stored["status"] == "live")
            state = replace(state, **{name: live})
        state = replace(state, kills=state.kills | {f"{kind}:{key}"})
        self.state.change(state, asked_s=asked_s, answered_s=answered_s)

    async def _is_owed(self, kind: str, key: str) -> bool:
        async with self.stopped["redis"]:
            found = (await self.admin.get("/kills")).raise_for_status().json()["kills"]
        return any(kill["owed"] for kill in found if (kill["kind"], kill["key"]) == (kind, key))

    async def lift(self) -> None:
        """What was killed is shown again, if it is live."""
        if not self.state.value.kills:
            return
        name = self.chance.choice(sorted(self.state.value.kills))
        asked_s = time.monotonic()
        async with self.stopped["redis"]:
            (await self.admin.delete(f"/kills/{name.replace(':', '/')}")).raise_for_status()
        state = replace(self.state.value, kills=self.state.value.kills - {name})
        self.state.change(state, asked_s=asked_s, answered_s=time.monotonic())

    # What people do

    async def become(self) -> None:
        """Somebody enters or leaves a segment, or gets another group."""
        async with self.turn:
            person = self.chance.choice(self.people)
            event = {"id": f"e{next(self.numbers)}", "source": "model", "subject": self.subject(person), "time": _now()}
            group = person.held.value.group
            if person.customer and self.chance.random() < 0.4:
                group = self.chance.choice(GROUPS)
                event |= {"type": "group_assigned", "data": {"group": group}}
            else:
                name = self.chance.choice(ATTRIBUTES)
                person.attributes[name] = self.chance.choice(VALUES)
                event |= {"type": "identify", "data": {"attributes": {name: person.attributes[name]}}}
            asked_s = time.monotonic()
            await self._tell(event)
            await self._settled(person, person.held.value._replace(segments=self._inside(person), group=group), asked_s)

    async def log_in(self) -> None:
        """A visitor turns out to be a customer nobody knew, of the trade."""
        async with self.turn:
            person = self.chance.choice([p for p in self.people if not p.customer])
            name, visitor = f"m{next(self.numbers)}", self.subject(person).removeprefix("visitor:")
            common = {"source": "model", "subject": f"customer:{name}", "time": _now()}
            who = {"visitor_id": visitor, "customer_id": name}
            if person.held.value.customer:
                return
            asked_s = time.monotonic()
            await self._tell({**common, "id": f"e{next(self.numbers)}", "type": "login", "data": who})
            assigned = {"type": "group_assigned", "data": {"group": "trade"}}
            await self._tell({**common, "id": f"e{next(self.numbers)}", **assigned})
            became = View(self._inside(person), "trade", customer=True)
            await self._settled(person, became, asked_s, through=[became._replace(group="guest")])

    async def log_out(self) -> None:
        """Who comes back on the same device is a stranger."""
        async with self.turn:
            person = self.chance.choice([p for p in self.people if not p.customer])
            asked_s = time.monotonic()
            await self.refresh(person, logout=True)
            person.attributes = {}
            person.held.change(View(self._inside(person)), asked_s=asked_s, answered_s=time.monotonic())

    async def _tell(self, event: dict[str, Any]) -> None:
        async with self.stopped["segment_svc"]:
            found = await self.server.post("/v1/events", json={"events": [event]})
        assert found.json()["rejected"] == [], found.text

    async def redefine(self) -> None:
        """A segment is for others from now on."""
        async with self.turn:
            name = self.chance.choice(ATTRIBUTES)
            self.values[name] = self.chance.choice([v for v in VALUES if v != self.values[name]])
            body = {"name": name, "status": "active", "condition": self._condition(name)}
            async with self.stopped["segment_svc"]:
                stored = (await self.admin.get(f"/segments/{name}")).json()
                headers, asked_s = {"if-match": f'"{stored["version"]}"'}, time.monotonic()
                saved = await self.admin.put(f"/segments/{name}", json=body, headers=headers)
            assert saved.status_code == 200, saved.text
            for person in self.people:
                await self._settled(person, person.held.value._replace(segments=self._inside(person)), asked_s)

    def _condition(self, name: str) -> dict[str, Any]:
        return {"attribute": name, "op": "eq", "value": self.values[name]}

    def _inside(self, person: Person) -> frozenset[str]:
        return frozenset(name for name in ATTRIBUTES if person.attributes.get(name) == self.values[name])

    async def _settled(self, person: Person, view: View, asked_s: float, through: Sequence[View] = ()) -> None:
        """Wait until somebody is what events make of them; `through`: what they may have been on the way."""
        until_s = time.monotonic() + SETTLED_S
        while (said := await self._said(person)) != (view.segments, view.group):
            assert time.monotonic() < until_s, (
                f"{self.subject(person)} is {said}, not {view}, {SETTLED_S} s after what they did"
            )
            await asyncio.sleep(0.05)
        now_s = time.monotonic()
        for held in (*through, view):
            person.held.change(held, asked_s=asked_s, answered_s=now_s)

    async def _said(self, person: Person) -> tuple[frozenset[str], str] | str:
        """The segments and the group of somebody, or why nobody says so."""
        profile = self.subject(person).replace("visitor:", "v:").replace("customer:", "c:")
        found = await self.server.get("/v1/explain", params={"profile": profile, "slots": ",".join(SLOTS)})
        if found.status_code != 200:
            return found.text
        facts = await self.admin.get(f"/profiles/{profile}")
        inside = facts.json()["segments"] if facts.status_code == 200 else []  # nobody knows them
        return frozenset(s["segment"] for s in inside), found.json()["group"]

    def subject(self, person: Person) -> str:
        """As events name them."""
        if person.customer:
            return f"customer:{person.name}"
        return f"visitor:{person.cookies['__Host-ff_vid'].split('.')[0]}"

    async def refresh(self, person: Person | None = None, *, logout: bool = False) -> None:
        """Somebody's context cookie is made anew; after a `logout` with another visitor id."""
        person = person or self.chance.choice([p for p in self.people if not p.customer])
        began_s = time.monotonic()
        door = self.chance.choice([url for name, url in self.doors.items() if name.startswith("gateway")])
        more = "?logout=true" if logout else ""
        found = await self.browser.get(f"{door}/v1/context{more}", headers=cookie(person.cookies))
        for line in found.headers.get_list("set-cookie"):
            name, _, value = line.split(";")[0].partition("=")
            if name == "__Host-ff_ctx":
                person.context = (began_s, time.monotonic())
            person.cookies[name] = value

    @asynccontextmanager
    async def opened(self) -> Any:
        """Close the connections at the end."""
        try:
            yield self
        finally:
            for client in (self.admin, self.server, self.browser):
                await client.aclose()


def words(text: str) -> dict[str, Any]:
    """Content that says one word."""
    return {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": text}}]}}


def cookie(cookies: dict[str, str]) -> dict[str, str]:
    """As a header."""
    return {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
