"""What an edge is asked, to see whether it keys by what it proves: a page on which two visitors in the world differ; and what a
cache is asked that says that it keys by the URL.

Every question is a new page, so that no copy is older than it. Its name stands in the place of a slot, and is signed; its
two visitors are made of the name. It says whom and where the gateway takes the caller for, and which key the edge proved with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from gateway.domain import aud, dimensions
from gateway.domain.answer import Answer, finish
from gateway.domain.dimensions import Seen
from gateway.domain.identity import CONTEXT, VISITOR, context_cookie, visitor_cookie
from gateway.domain.signing import Ring
from gateway.domain.targeting import Plan

MARK = b"slots=~"  # no slot begins so
NAME = re.compile(r"~([a-z0-9]{1,16})\.[0-9a-f]{16}\.([A-Za-z0-9_-]{43})")
CODES = dimensions.member("p", 0, 0), dimensions.member("q", 1, 0)
FIRST, SECOND, STRANGER = "first", "second", "stranger"
LIFE_S = 5


class Step(NamedTuple):
    """A request, and whom the answer may be for; `aud` as in a URL that says for whom it asks."""

    headers: dict[str, str]
    who: tuple[str, ...]
    aud: str = ""


def question(ring: Ring, random: bytes) -> str:
    """The name of a page nobody asked for yet, from 8 random bytes."""
    text = f"~{ring.newest}.{random.hex()}"
    return f"{text}.{ring.signature('probe|' + text)}"


def genuine(ring: Ring, name: str) -> bool:
    """Whether one of us asks."""
    found = NAME.fullmatch(name)
    return found is not None and ring.genuine(found[1], "probe|" + name.rpartition(".")[0], found[2])


def visitor(ring: Ring, name: str, which: str) -> tuple[str, str]:
    """(visitor id, cookie) of one who differs on a page: FIRST or SECOND."""
    return visitor_cookie(ring, blake2b(f"{which}{name}".encode(), digest_size=16).digest())


def who(ring: Ring, name: str, visitor_id: str) -> str:
    """Whom the page of a name is asked by."""
    return next((w for w in (FIRST, SECOND) if visitor(ring, name, w)[0] == visitor_id), STRANGER)


def plan(name: str) -> Plan:
    """On what the page depends: two codes, and a fact that the edge must believe of nobody."""
    country = dimensions.asked("country")
    depends = dimensions.ordered([*CODES, *([country] if country else [])])
    return Plan("", (name,), "*", depends, dimensions.mask(depends), 1, (), (), (), (), by_the_hour=False)


def seen(asker: str, facts: Mapping[str, str]) -> Seen:
    """What the page looks at."""
    return Seen({FIRST: 1, SECOND: 2}.get(asker, 0), facts=facts)


def page(name: str, seen: Seen, key_id: str, *, now_ms: int) -> Answer:
    """What the page says."""
    asker = {1: FIRST, 2: SECOND}.get(seen.atoms, STRANGER)
    said = {"probe": asker, "country": seen.facts.get("country", ""), "edge": key_id}
    return finish(plan(name), said, ("probe",), now_ms=now_ms, most_s=LIFE_S)


def steps(visitors: Ring, contexts: Ring, name: str, random: bytes, *, now_s: int) -> dict[str, Step]:
    """The two, a stranger, and two who pretend: in headers, and in the first one's context. `random`: 16 bytes."""
    cookies = {which: visitor(visitors, name, which)[1] for which in (FIRST, SECOND)}
    contexts_of = {
        which: context_cookie(contexts, code, now_s + 60, cookies[which], "", version=0)
        for which, code in ((FIRST, ".p."), (SECOND, ".q."))
    }
    other = visitor_cookie(visitors, random)[1]
    values = {"step": "aud", "codes": ".p.", "mask": ".p.q.country.", "aud": "p.", "key": "1", "proof": "x"}
    forged = {f"x-edge-{part}": value for part, value in values.items()}
    forged |= {"x-fact-country": "ZZ", "x-front-key": "x", "cookie": f"{CONTEXT}=.p.|9999999999|9|1|{'0' * 43}"}
    return {
        **{w: Step({"cookie": f"{VISITOR}={cookies[w]}; {CONTEXT}={contexts_of[w]}"}, (w,)) for w in (FIRST, SECOND)},
        "stranger": Step({}, (STRANGER,)),
        "forger": Step(forged, (STRANGER,)),
        "thief": Step({"cookie": f"{VISITOR}={other}; {CONTEXT}={contexts_of[FIRST]}"}, (STRANGER,)),
    }


def steps_by_url(visitors: Ring, auds: Ring, name: str, *, now_s: int) -> dict[str, Step]:
    """The two and a stranger by their URLs, whatever cookies they have; one with a URL that nobody signed; and the two by their
    cookies, which a cache may keep back, but not mix up."""
    cookie = {w: {"cookie": f"{VISITOR}={visitor(visitors, name, w)[1]}"} for w in (FIRST, SECOND)}
    minute = now_s // 60 + 2
    said = {w: aud.write(auds, plan(name), seen(w, {}), minute=minute) or "" for w in (FIRST, SECOND)}
    changed = said[FIRST][:-2] + ("AA" if said[FIRST][-2:] != "AA" else "BA")
    return {
        FIRST: Step(cookie[SECOND], (FIRST,), said[FIRST]),
        SECOND: Step({}, (SECOND,), said[SECOND]),
        "stranger": Step(cookie[FIRST], (STRANGER,), aud.BASE),
        "forger": Step({"x-cache-key": "x", "x-fact-country": "ZZ", "x-front-key": "x"}, (STRANGER,), changed),
        "first's own": Step(cookie[FIRST], (FIRST, STRANGER)),
        "second's own": Step(cookie[SECOND], (SECOND, STRANGER)),
    }


ORDERS = (
    (FIRST, "forger", "thief", SECOND, "stranger", FIRST),
    ("forger", "thief", "stranger", SECOND, FIRST, "forger"),
)
ORDERS_BY_URL = (
    (FIRST, "forger", "first's own", "second's own", SECOND, "stranger", FIRST),
    ("forger", "stranger", "second's own", SECOND, "first's own", FIRST, "forger"),
)


def fault(step: Step, said: Any) -> str | None:
    """What is wrong with what an edge answered."""
    if not isinstance(said, dict) or "probe" not in said:
        return "says something else"
    if said["probe"] not in step.who:
        return f"shows a {step.who[0]} what is for a {said['probe']}"
    return "believes a stranger where he is" if said.get("country") else None
