"""What is asked of the doors, genuine or not, and whether each answer is one that may have been given."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
from devstack.stack import customer_token
from moved import MOST_MS
from oracle import Answer, State, View, alive, answer
from world import SLOTS, Person, World, cookie

RECENT_S = 8.0
SLACK_S = 2.0  # how long what was replaced may still be shown
FORGERIES = ("none", "none", "none", "stranger", "fact", "query", "proof", "mask", "context", "visitor", "twice")


class Asked(NamedTuple):
    """An answer, and what it is to be judged by: `context` is when the cookie was made, `when` it was asked and answered."""

    what: str
    person: Person | None
    context: tuple[float, float] | None
    slots: tuple[str, ...]
    region: str | None
    when: tuple[float, float]
    found: httpx.Response


@dataclass
class Asking:
    """Who asks, and what came. `wrong` is what nobody may see and somebody saw."""

    world: World
    wrong: list[str] = field(default_factory=list)
    answers: list[Asked] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    deeds: list[tuple[float, str]] = field(default_factory=list)

    async def did(self, deed: Callable[[], Awaitable[None]]) -> None:
        """Something happens, and is remembered."""
        self.deeds.append((time.monotonic(), f"{deed.__name__}..."))
        await deed()
        self.seen[deed.__name__] += 1
        self.deeds.append((time.monotonic(), deed.__name__))

    async def ask(self) -> None:
        """One request of somebody through some door, genuine or not; what came is compared with what may be."""
        world = self.world
        person, slots = (
            world.chance.choice(world.people),
            sorted(world.chance.sample(SLOTS, world.chance.randint(1, 2))),
        )
        door, forgery = world.chance.choice(sorted(world.doors)), world.chance.choice(FORGERIES)
        region = world.chance.choice((None, None, "BY", "HH"))
        headers, query, known = self._forged(person, forgery)
        if region is not None:
            headers |= {"x-fact-region": region, "x-front-key": world.stack.secrets.front}
        if forgery == "fact":
            headers |= {"x-fact-region": "BY", "x-front-key": "y" * 43}
            region = None
        began_s = time.monotonic()
        try:
            url = f"{world.doors[door]}/v1/decisions?slots={','.join(slots)}{query}"
            found = await world.browser.get(url, headers=headers)
        except httpx.HTTPError:
            self.seen["no answer"] += 1
            return
        self.seen[found.headers.get("cache-status", "direct")] += 1
        if found.status_code != 200:
            self.seen[f"status {found.status_code}"] += 1
            return
        when = (began_s, time.monotonic())
        at_an_edge = door.startswith("edge")  # a gateway knows who it is, whatever the context says
        context = person.context if known and at_an_edge and not person.customer else None
        self.answers.append(
            Asked(f"{door} {forgery}", person if known else None, context, tuple(slots), region, when, found)
        )

    def _forged(self, person: Person, forgery: str) -> tuple[dict[str, str], str, bool]:
        """Headers, more of the query, and whether the person is known by them."""
        world = self.world
        headers: dict[str, str] = {}
        if person.customer:
            headers["authorization"] = f"Bearer {customer_token(world.stack.secrets.jwt, person.name)}"
        else:
            headers = cookie(person.cookies)
        if forgery == "query":
            return headers, "&logged_in=1&region=BY", True
        if forgery in ("proof", "mask"):
            more = {
                "x-edge-key": "e1",
                "x-edge-mask": "base" if forgery == "proof" else ".s1.",
                "x-edge-proof": "A" * 43,
            }
            return {**headers, **more, "x-edge-aud": "", "x-edge-step": "base", "x-edge-codes": ".s1.s2.g."}, "", True
        if person.customer or forgery in ("none", "fact"):
            return headers, "", True
        name, value = "__Host-ff_vid", person.cookies["__Host-ff_vid"]
        if forgery == "stranger":
            return {}, "", False
        if forgery == "visitor":
            return cookie({**person.cookies, name: value[:-2] + ("aa" if value[-2:] != "aa" else "bb")}), "", False
        if forgery == "twice":
            other = world.chance.choice([p for p in world.people if not p.customer]).cookies[name]
            return {"cookie": f"{name}={other}; {cookie(person.cookies)['cookie']}"}, "", False
        other = world.chance.choice([p for p in world.people if not p.customer])
        return cookie({**person.cookies, "__Host-ff_ctx": other.cookies.get("__Host-ff_ctx", "")}), "", True

    def judge(self) -> None:
        """Compare every answer with what may have been seen; afterwards, when it is known what held when."""
        for asked in self.answers:
            since_s, until_s = asked.when[0] - SLACK_S, asked.when[1]
            states, views = self.world.state.during(since_s, until_s), self._views(asked)
            instants = self._instants(states, since_s, until_s)
            body = asked.found.json()
            said = Answer(
                tuple((slot, tuple(shown(body["slots"][slot]))) for slot in asked.slots),
                frozenset(message["label"] for message in body["messages"]),
            )
            self.seen["asked"] += 1
            if "degraded" in body:
                self.seen[f"degraded {body['degraded']}"] += 1
                right = self._is_harmless(said, states, views, instants)
            else:
                may = {answer(s, v, asked.slots, at) for s in states for v in views for at in instants}
                right = said in may
            if not right:
                expected = answer(states[-1], views[-1], asked.slots, instants[-1])
                who = f"{asked.person and asked.person.name} {asked.region}"
                at_s = asked.when[1]
                before = [f"{name} {s - at_s:.1f}" for s, name in self.deeds if -RECENT_S < s - at_s < 0]
                self.wrong.append(
                    f"{asked.what}: {who} saw {said}, not {expected}; {asked.found.headers}; {len(states)} states, views {views},"
                    f" asked {asked.when[0] - at_s:.2f}; blocks {states[-1].blocks} rules {states[-1].rules};  {before}"
                )

    def _views(self, asked: Asked) -> list[View]:
        person, held = asked.person, [View(frozenset())]
        if person is not None:
            held = person.held.during(*asked.when)
            if asked.context is not None:
                held += person.held.during(*asked.context)
        known, local = person is not None and person.customer, {"bavaria"} if asked.region == "BY" else set()
        members = {True: {"members"}, False: set[str]()}
        return [v._replace(segments=v.segments | local | members[known or v.customer]) for v in held]

    def _instants(self, states: list[State], since_s: float, until_s: float) -> list[int]:
        off_ms = int((time.time() - time.monotonic()) * 1000)
        first, last = (
            off_ms + int(since_s * 1000) - MOST_MS,
            off_ms + int(until_s * 1000) + MOST_MS,
        )  # whichever clock says so
        ends = {b.ends_at_ms for s in states for b in (*s.blocks.values(), *s.rules.values()) if b.ends_at_ms}
        return sorted({first, last, *(end for end in ends if first <= end <= last)})

    def _is_harmless(self, said: Answer, states: list[State], views: list[View], instants: list[int]) -> bool:
        """Whether everything shown may be seen, whatever else is missing."""
        may = set()
        for state, view, at in itertools.product(states, views, instants):
            for kind, found in (("block", state.blocks), ("rule", state.rules)):
                may |= {one.word for _, one in alive(found, kind, state.kills, at) if one.audience.takes(view)}
        return {word for _, found in said.slots for word in found} | said.labels <= may


def shown(slot: dict[str, Any]) -> list[str]:
    """The words a slot shows; none for its default."""
    found = [block["content"]["blocks"][0]["props"]["text"] for block in slot["blocks"]]
    return [word for word in found if word != "default"]
