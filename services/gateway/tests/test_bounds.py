"""What one caller may cost the others: nothing that is remembered grows with what is sent, and nobody shares a refusal."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import uvicorn
from chassis.auth import ServiceTokens
from chassis.clock import SystemClock
from gateway.adapters import upstreams
from gateway.adapters.upstreams import MOST_IDLE_S, SEGMENT, Coalescer
from gateway.domain.dimensions import FACTS, PAGE
from gateway.domain.identity import VISITOR, visitor_cookie
from gateway.domain.kept import Kept
from gateway.flows.decide import Decider
from gateway.flows.knowledge import Knowledge
from gateway.lanes.request import MOST_VALUE, Reader
from hypothesis import given
from hypothesis import strategies as st
from rigged import DEFAULT, KEYS, RING, RINGS, asked, release, slot, stranger_asks


class Service:
    """Answers content and promotions; counts what it is asked for, and is away when told so."""

    def __init__(self) -> None:
        self.word, self.away, self.slots = "first", False, Counter[str]()
        self.versions, self.refused = [1], False  # of the answers to come; the last one stays

    async def ask(self, question: Mapping[str, Any]) -> Any:
        if self.away or question.get("slots") == []:
            raise httpx.HTTPError("away, or asked for nothing")
        self.slots.update(question.get("slots", ()))
        shown = {slot: {"fallback": False, "blocks": [self.word]} for slot in question.get("slots", ())}
        version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        answer = {"version": version, "slots": shown, "messages": [], "tags": ["t"]}
        return {**answer, "slots": {}, "refused": [{"pointer": "/x"}]} if self.refused else answer


def publish(knowledge: Knowledge, version: int) -> None:
    knowledge.swap(*release(version, top=slot(), side=slot("de", "de-AT", *map(str, range(1000)))))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def decider(service: Service) -> Decider:
    ask: Any = service
    return Decider(Knowledge(), ask, ask, ask, SystemClock(), ZoneInfo("UTC"), 5.0, 60, Kept(1 << 20))


async def shown(decider: Decider, *slots: str, locale: str = "*") -> dict[str, Any]:
    answer = await stranger_asks(decider, *slots, locale=locale)
    assert dict(answer.shared().headers)[b"content-length"] == b"%d" % len(answer.body)
    return dict(httpx.Response(200, content=answer.body).json())


class TestKept:
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60))
    def test_it_holds_what_was_put_last_and_never_more_than_it_may(self, puts: list[tuple[int, int]]) -> None:
        kept: Kept[int, int] = Kept(100)
        model: list[tuple[int, int, int]] = []
        for n, (key, size) in enumerate(puts):
            kept.put(key, n, size)
            model = [entry for entry in model if entry[0] != key] + [(key, n, size)]
            while sum(size for _, _, size in model) > 100:
                model = model[1:]
        assert {key: kept.get(key) for key in range(6)} == {**dict.fromkeys(range(6)), **{k: n for k, n, _ in model}}
        assert (kept.size, len(kept)) == (sum(size for _, _, size in model), len(model))

    def test_the_oldest_goes_and_a_new_value_of_a_key_is_the_newest(self) -> None:
        kept: Kept[str, int] = Kept(3)
        for key in "abcad":
            kept.put(key, ord(key), 1)
        assert [key for key in "abcd" if kept.get(key)] == ["a", "c", "d"]


class TestRemembered:
    async def test_slots_that_are_nowhere_are_in_the_answer_and_in_nothing_that_is_kept(
        self, decider: Decider, service: Service
    ) -> None:
        publish(decider.knowledge, 1)
        plain, known = await shown(decider, "top"), decider.knowledge
        before = (known.release.plans.size, known.release.answers.size, decider.last_good.size)
        for n in range(50):
            found = await shown(decider, "top", f"x{n}")
            assert found["slots"] == {**plain["slots"], f"x{n}": {"fallback": True, "blocks": []}}
            assert "degraded" not in found
        assert (known.release.plans.size, known.release.answers.size, decider.last_good.size) == before
        assert service.slots == {"top": 1}
        found = await shown(decider, "x")
        assert (found["slots"], found.get("degraded")) == ({"x": {"fallback": True, "blocks": []}}, None)

    async def test_a_locale_is_remembered_as_what_content_is_found_under(
        self, decider: Decider, service: Service
    ) -> None:
        publish(decider.knowledge, 1)
        known = decider.knowledge
        await shown(decider, "top", "side")
        before = (known.release.plans.size, known.release.answers.size, decider.last_good.size)
        for n in range(1000, 1500):
            await shown(decider, "top", "side", locale=f"q{n}")
        assert (known.release.plans.size, known.release.answers.size, decider.last_good.size) == before
        plan = known.release.plan
        for named, found in (("de-AT", "de-AT"), ("de-CH", "de"), ("de", "de"), ("fr-FR", "*"), ("", "*"), ("*", "*")):
            assert plan("main", ["side", "top"], named).locale == found
            assert plan("main", ["top"], named).locale == "*"

    async def test_before_anything_is_known_no_slot_is_said_to_be_empty_for_good(self, decider: Decider) -> None:
        found = await shown(decider, "top")
        assert (found["degraded"], found["slots"]) == (
            ["content", "promotions"],
            {"top": {"fallback": True, "blocks": []}},
        )
        publish(decider.knowledge, 1)
        assert (await shown(decider, "top"))["slots"]["top"]["blocks"] == ["first"]

    @pytest.mark.parametrize("between", [5, 600])
    async def test_what_a_service_said_last_is_what_is_shown_while_it_is_away_however_much_was_asked_between(
        self, decider: Decider, service: Service, between: int
    ) -> None:
        for version, word in enumerate(("monday", "friday"), 1):
            publish(decider.knowledge, version)
            service.word, service.versions = word, [version]
            await shown(decider, "top")
            for n in range(between):
                await shown(decider, "side", locale=str(n))
        publish(decider.knowledge, 2)  # as when only another service has something new
        service.away = True
        assert (await shown(decider, "top"))["slots"]["top"]["blocks"] == ["friday"]
        publish(decider.knowledge, 3)  # it may be switched off, or for others now
        found = await shown(decider, "top")
        assert (found["slots"]["top"]["blocks"], found["degraded"]) == (DEFAULT, ["content", "promotions"])
        assert decider.last_good.size <= 1 << 20

    def test_cookies_take_the_same_place_however_long_they_are(self) -> None:
        none: Any = None
        reader = Reader(KEYS, RINGS, none)
        name, value = visitor_cookie(RING, bytes(16))
        tracemalloc.start()
        try:
            for n in range(500):
                junk = b"x=%d; y=" % n + b"z" * 20_000
                assert reader.visitor(junk) is None
                assert reader.visitor(junk + f"; {VISITOR}={value}".encode()) == b"v:" + name.encode()
                assert reader.visitor(junk + f"; {VISITOR}={value[:-1]}".encode()) is None
            assert tracemalloc.get_traced_memory()[0] < 1 << 20
        finally:
            tracemalloc.stop()


class TestContext:
    @pytest.mark.parametrize("front", [b"front", b"another"])
    def test_no_field_is_longer_than_a_condition_may_have_to_look_at_and_facts_come_from_the_front(
        self, front: bytes
    ) -> None:
        long, none = "a" * 500, None
        tokens: Any = none
        fields = {f"x_fact_{name}": long.encode() for name in FACTS}
        fields |= {"referer": long.encode(), "accept_language": long.encode(), "x_front_key": front}
        query = "&".join(f"{name}={long}" for name in ("path", "landing_page", "visit", *PAGE, *FACTS))
        reader, request = Reader(KEYS, RINGS, tokens), asked(query.encode(), **fields)
        facts, page = reader.facts(request), reader.page(request)
        assert facts == (dict.fromkeys(FACTS, long[:MOST_VALUE]) if front == b"front" else {})
        assert page == dict.fromkeys(PAGE, long[:MOST_VALUE])


class Upstreams:
    """Refuses a request that has something bad in it as a whole, as services do; remembers what it was asked."""

    def __init__(self, status: int) -> None:
        self.status, self.asked = status, list[list[str]]()

    async def json(self, service: str, method: str, path: str, shape: Any, *, json: Mapping[str, Any], **_: Any) -> Any:
        asks = [ask["name"] for ask in json["asks"]]
        self.asked.append(asks)
        await asyncio.sleep(0)
        if "bad" in asks:
            answer = httpx.Response(self.status, request=httpx.Request(method, "http://x"))
            answer.raise_for_status()
        return {"answers": asks}


async def test_what_was_asked_and_answered_is_gone_at_once_and_waits_for_no_collection() -> None:
    made = upstreams.Upstreams({SEGMENT: "http://service"}, ServiceTokens("s" * 32, "gateway"))
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=b"a" * 1000))
    made._clients[SEGMENT] = httpx.AsyncClient(transport=transport, base_url="http://service")
    gc.disable()
    try:
        answer = await made.send(SEGMENT, "POST", "/", content=b"q" * 1000)
        kept = weakref.ref(answer), weakref.ref(answer.request)
        assert answer.content == b"a" * 1000
        del answer
        assert [ref() for ref in kept] == [None, None]
    finally:
        gc.enable()
        await made.aclose()


def test_an_idle_connection_is_let_go_well_before_the_service_closes_it() -> None:
    none: Any = None
    assert uvicorn.Config(none).timeout_keep_alive > 2 * MOST_IDLE_S


class TestCoalescer:
    @pytest.mark.parametrize("status", [400, 413, 422])
    async def test_a_refused_question_is_refused_alone(self, status: int) -> None:
        upstreams: Any = Upstreams(status)
        coalescer = Coalescer(upstreams, "s", "/many", dict, most_s=1.0)
        names = ["first", "second", *(f"n{n}" for n in range(10)), "bad", "last"]
        found = await asyncio.gather(*(coalescer.ask({"name": n}) for n in names), return_exceptions=True)
        assert isinstance(found.pop(names.index("bad")), httpx.HTTPError)
        assert found == [name for name in names if name != "bad"]
        assert [asks for asks in upstreams.asked if asks == ["bad"]] == [["bad"]]
        assert max(Counter(name for asks in upstreams.asked for name in asks).values()) == 2

    async def test_a_service_that_fails_is_not_asked_again(self) -> None:
        upstreams: Any = Upstreams(503)
        coalescer = Coalescer(upstreams, "s", "/many", dict, most_s=1.0)
        names = ["first", "second", "bad"]
        found = await asyncio.gather(*(coalescer.ask({"name": n}) for n in names), return_exceptions=True)
        assert all(isinstance(f, httpx.HTTPError) for f in found)
        assert upstreams.asked == [names]

    async def test_who_asks_for_much_keeps_nobody_waiting_and_is_not_left_waiting_either(self) -> None:
        upstreams: Any = Upstreams(503)
        coalescer = Coalescer(upstreams, "s", "/many", dict, most_s=1.0)
        much = [{"name": f"much{n}", "slots": ["s"] * 20} for n in range(12)]
        little = [{"name": f"little{n}", "slots": ["s"]} for n in range(100)]
        await asyncio.gather(*(coalescer.ask(question) for question in much + little))
        sizes = [sum(20 if name.startswith("much") else 1 for name in asks) for asks in upstreams.asked]
        assert max(sizes) <= Coalescer.MOST_SLOTS
        assert sum(map(len, upstreams.asked)) == len(much + little)
        first, then = upstreams.asked[:2]
        assert {name for name in first + then if name.startswith("little")}, "half of what is asked is little"
        assert {name for name in first + then if name.startswith("much")}
        last = [n for n, asks in enumerate(upstreams.asked) if any(name.startswith("little") for name in asks)][-1]
        assert last <= 4, "of 100 at most 64 at once, every other time"

    async def test_who_asks_for_much_has_a_turn_however_many_ask_for_little(self) -> None:
        upstreams: Any = Upstreams(503)
        coalescer = Coalescer(upstreams, "s", "/many", dict, most_s=1.0)
        over = asyncio.Event()

        async def again_and_again(n: int) -> None:
            while not over.is_set():
                await coalescer.ask({"name": f"little{n}", "slots": ["s"]})

        asking = [asyncio.ensure_future(again_and_again(n)) for n in range(400)]
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert await coalescer.ask({"name": "much", "slots": ["s"] * 20}) == "much"
        over.set()
        await asyncio.gather(*asking)
        assert len(upstreams.asked) < 100

    async def test_a_question_for_more_than_a_request_has_room_for_is_asked_alone(self) -> None:
        upstreams: Any = Upstreams(503)
        coalescer = Coalescer(upstreams, "s", "/many", dict, most_s=1.0)
        questions = [{"name": n, "slots": ["s"] * (Coalescer.MOST_SLOTS + 1)} for n in ("a", "b")]
        assert await asyncio.gather(*(coalescer.ask(question) for question in questions)) == ["a", "b"]
        assert upstreams.asked == [["a"], ["b"]]
