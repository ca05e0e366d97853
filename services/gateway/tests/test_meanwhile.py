"""What is published while something is waited for counts: nobody is judged by definitions that are not the answer's."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from chassis.clock import SystemClock
from fastapi import Request
from gateway.adapters.keys import ApiKey
from gateway.adapters.tokens import CustomerTokens
from gateway.domain.identity import CONTEXT, VISITOR, visitor_cookie
from gateway.domain.kept import Kept
from gateway.domain.release import OF_SEGMENTS
from gateway.flows import promotions
from gateway.flows.decide import Decider
from gateway.flows.knowledge import Knowledge
from gateway.flows.people import Person, look_up
from gateway.flows.promotions import Shopper
from gateway.lanes.request import Reader
from gateway.routes.shop import get_context
from rigged import KEYS, RINGS, asked, decisions, release, slot

EVERYBODY = {"id": 7, "key": "everybody", "websites": [], "atom": 3, "epoch": 0, "since": 0, "residual": None}
LOCALE = {"context": "locale", "op": "eq", "value": "fr"}
FRENCH = {"id": 8, "key": "french", "websites": [], "atom": None, "epoch": 0, "since": 0, "residual": LOCALE}
NAME, COOKIE = visitor_cookie(RINGS.visitor, b"n" * 16)


def publish(
    knowledge: Knowledge, version: int, segments: list[dict[str, Any]], *, empty: str = "", **slots: Any
) -> None:
    """`empty`: the bits of a visitor of whom nothing is known, in hex."""
    definitions, content, promo = release(version, top={**slot(), "audiences": [AUDIENCE]}, **slots)
    definitions |= {"segments": segments, "empty": {"visitor": empty, "customer": empty}}
    knowledge.swap(definitions, content, {**promo, "segments": ["everybody"], "rules": [AUDIENCE]})


AUDIENCE = {"websites": [], "segments": ["everybody", "french"], "groups": [], "boundaries": []}


class Meanwhile:
    """Stands for Redis and for the services: one that was never seen asks, and everybody is put into a segment while the first
    thing is waited for. Remembers what the services were asked."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge, self.asked = knowledge, list[Mapping[str, Any]]()
        publish(knowledge, 1, [])

    def remembered(self, _: bytes) -> Person | None:
        return None

    async def get(self, _: bytes) -> Person:
        publish(self.knowledge, 2, [EVERYBODY], empty="08")
        return Person(None, b"0")

    async def ask(self, question: Mapping[str, Any]) -> Any:
        self.asked.append(question)
        shown = {"top": {"fallback": False, "blocks": []}}
        return {"version": question["version"], "slots": shown, "messages": [], "tags": []}

    async def send(self, *_: Any, json: Mapping[str, Any], **__: Any) -> Any:
        self.asked.append(json)
        return SimpleNamespace(status_code=200)


@pytest.fixture
def there() -> Meanwhile:
    return Meanwhile(Knowledge())


@pytest.fixture
def decider(there: Meanwhile) -> Decider:
    pipe: Any = there
    services: Any = there
    return Decider(there.knowledge, pipe, services, services, SystemClock(), ZoneInfo("UTC"), 5.0, 60, Kept(1 << 20))


async def test_a_decision(decider: Decider, there: Meanwhile) -> None:
    hot = decisions(decider, KEYS)
    question = hot.begin(asked(b"slots=top", cookie=f"{VISITOR}={COOKIE}".encode()))
    assert hot.now(question) is None
    await hot.later(question)
    assert [q["segments"] for q in there.asked] == [["everybody"]] * 2


async def test_a_cart(decider: Decider, there: Meanwhile) -> None:
    deps: Any = SimpleNamespace(decider=decider, upstreams=there)
    who = await look_up(decider.pipe, b"v:x")
    await promotions.ask(deps, Shopper(who, "main", 1, {}), "/v1/evaluate", {})
    assert [q["segments"] for q in there.asked] == [["everybody"]]
    publish(there.knowledge, 3, [EVERYBODY], empty="00")  # and who is asked for anew
    await promotions.ask(deps, Shopper(who, "main", 1, {}), "/v1/evaluate", {})
    assert there.asked[-1]["segments"] == []


async def context(decider: Decider) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that makes a context."""
    tokens: Any = CustomerTokens("", issuer="", audience="")
    deps: Any = SimpleNamespace(
        decider=decider, reader=Reader(KEYS, RINGS, tokens), rings=RINGS, clock=SystemClock(),
        settings=SimpleNamespace(context_s=600), encode=lambda _: b"{}",
    )  # fmt: skip
    scope = {"type": "http", "method": "GET", "raw_path": b"/v1/context", "query_string": b"", "client": None}
    scope |= {"headers": [(b"cookie", f"{VISITOR}={COOKIE}".encode())]}
    return (await get_context(Request(scope), deps, ApiKey("k", "", "publishable"))).raw_headers


async def test_a_context(decider: Decider, there: Meanwhile) -> None:
    said = next(v for n, v in await context(decider) if n == b"set-cookie" and v.startswith(CONTEXT.encode()))
    codes, version = said.decode().partition("=")[2].split("|")[0], said.decode().split("|")[2]
    # Who is as everybody whom nobody saw has no codes: those of a stranger are none, in whatever segment strangers are.
    assert (codes, version) == (".", "2")


@pytest.mark.parametrize("why", ["withheld", "not loaded"])
async def test_while_nobody_is_known_to_be_in_a_segment_no_context_is_made(
    decider: Decider, there: Meanwhile, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    async def get(_: bytes) -> Person:
        if why == "withheld":
            there.knowledge._adopt(there.knowledge.release.anew(without=[OF_SEGMENTS]))
        there.knowledge.loaded = why == "withheld"
        return Person(None, b"0")

    monkeypatch.setattr(there, "get", get)
    assert not [v for n, v in await context(decider) if n == b"set-cookie" and v.startswith(CONTEXT.encode())]


async def test_what_a_locale_is_in_counts_although_no_content_is_in_it(decider: Decider, there: Meanwhile) -> None:
    publish(there.knowledge, 1, [FRENCH])
    hot = decisions(decider, KEYS)
    for locale in (b"fr", b"de", b"*", b"fr"):
        await hot.later(hot.begin(asked(b"slots=top&locale=" + locale)))
    assert [(q["segments"], q.get("locale")) for q in there.asked if "slots" in q] == [(["french"], "*"), ([], "*")]
    release_ = there.knowledge.release
    sizes = (release_.plans.size, release_.answers.size)
    for n in range(200):
        await hot.later(hot.begin(asked(b"slots=top&locale=x%d" % n)))
    assert (release_.plans.size, release_.answers.size) == sizes, "nobody's inventions are remembered"
