"""Who asks too much is refused, and nobody else is: not their neighbours, not the shop."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import chassis.http
import httpx
import pytest
from chassis.cache import open_redis
from chassis.clock import ManualClock
from chassis.health import Health
from chassis.http import Limits, service_app
from chassis.problems import Problem
from gateway.adapters import limits
from gateway.adapters.keys import Keys
from gateway.adapters.limits import UNKNOWN, Limiter, Most, block_of, house_of
from gateway.lanes.asgi import Door, Lane
from gateway.lanes.request import Reader
from gateway.routes import merchants, shop
from hypothesis import given
from hypothesis import strategies as st
from rigged import NOBODYS, RINGS

START = 1_700_000_000_000 - 1_700_000_000_000 % 60_000
MOST = Most(person=3, block=6, key=10)


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("203.0.113.9", "203.0.113.0"), ("2001:db8:1:2::3", "2001:db8:1::"), ("::ffff:203.0.113.9", "203.0.113.0"),
        ("", UNKNOWN), ("testclient", UNKNOWN), ("203.0.113.9, 1.2.3.4", UNKNOWN), ("203.0.113.9:80", UNKNOWN),
    ],
)  # fmt: skip
def test_neighbours_are_those_who_share_a_block(address: str, block: str) -> None:
    assert block_of(address) == block


@pytest.mark.parametrize(
    ("address", "house"),
    [
        ("203.0.113.9", "203.0.113.9"), ("2001:db8:1:2::3", "2001:db8:1:2::"), ("2001:db8:1:3::3", "2001:db8:1:3::"),
        ("::ffff:203.0.113.9", "203.0.113.9"), ("", UNKNOWN),
    ],
)  # fmt: skip
def test_whoever_has_one_address_of_a_house_has_all(address: str, house: str) -> None:
    assert house_of(address) == house


@given(st.text(max_size=60))
def test_whatever_is_said_has_a_block_that_is_short(said: str) -> None:
    assert len(block_of(said)) <= 39


def taken(limiter: Limiter, times: int, *, address: str | None = None, person: str | None = None) -> int:
    """How many of so many requests are answered."""
    answered, refused, chance = 0, set[tuple[int, str]](), random.Random(times)
    for _ in range(times):
        try:
            who = None if person is None else person.encode()
            if address is not None and chance.random() < 0.5:  # one after the other, or at once
                limiter.take_of(address)
                limiter.take("k", person=who)
            else:
                limiter.take("k", person=who, address=address)
        except Problem as problem:
            refused.add((problem.status, problem.headers["retry-after"]))
        else:
            answered += 1
    assert refused <= {(429, "60")}
    return answered


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


class TestTake:
    @pytest.fixture
    def limiter(self, clock: ManualClock) -> Limiter:
        return Limiter(None, clock, MOST, Health())

    def test_a_person_silences_no_neighbour_and_no_shop(self, limiter: Limiter) -> None:
        assert taken(limiter, 5, person="a", address="203.0.113.1") == 3
        assert taken(limiter, 1, person="b", address="203.0.113.2") == 1

    def test_a_neighbourhood_silences_no_other_and_no_shop(self, limiter: Limiter) -> None:
        assert taken(limiter, 50, address="203.0.113.1") == 6
        assert taken(limiter, 1, address="203.0.113.2") == 0
        assert taken(limiter, 50, address="198.51.100.1") == 4, "what the key has left"

    def test_a_server_has_as_much_as_its_key(self, limiter: Limiter) -> None:
        assert taken(limiter, 12) == 10

    def test_events_are_counted_by_themselves_and_the_neighbours_have_more(self, clock: ManualClock) -> None:
        limiter = Limiter(None, clock, Most(1000, 1000, 1000, events=100), Health())
        limiter.take_events(100, person=b"a", address="203.0.113.1")
        with pytest.raises(Problem):
            limiter.take_events(1, person=b"a", address="203.0.113.1")
        for n in range(limits.EVENTS - 1):
            limiter.take_events(100, person=b"b%d" % n, address="203.0.113.2")
        with pytest.raises(Problem):
            limiter.take_events(100, person=b"c", address="203.0.113.3")
        limiter.take_events(100, person=b"d", address="198.51.100.1")

    def test_bytes_of_bodies_are_counted_by_themselves_and_a_key_has_more(self, clock: ManualClock) -> None:
        limiter = Limiter(None, clock, Most(1000, 1000, 1000, bytes=100), Health())
        for n in range(limits.BYTES + 10):
            limiter.take_bytes(60, key=None, address=f"198.51.{n}.1")
            with pytest.raises(Problem) as refused:
                limiter.take_bytes(60, key="k", address=f"198.51.{n}.2")
            assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "60")
        for _ in range(limits.BYTES):  # not charged for what a neighbourhood was refused
            limiter.take_bytes(100, key="k", address=None)
        with pytest.raises(Problem):
            limiter.take_bytes(1, key="k", address=None)
        limiter.take_bytes(100, key="another", address=None)

    def test_it_is_over_with_the_minute(self, limiter: Limiter, clock: ManualClock) -> None:
        assert taken(limiter, 5, person="a") == 3
        clock.advance(60_000)
        assert taken(limiter, 5, person="a") == 3

    def test_however_many_come_what_is_counted_is_bounded_and_the_key_is_counted_still(
        self, limiter: Limiter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "MOST_NAMES", 3)
        assert taken(limiter, 1, person="a") == 1
        assert [taken(limiter, 1, person=f"p{n}") for n in range(5)] == [1] * 5
        assert len(limiter._persons.here) == 3
        assert taken(limiter, 3, person="a") == 2, "who was counted is"
        assert taken(limiter, 9) == 2, "what the key has left"


KINDS = {"page": "publishable", "server": "secret", "boss": "admin"}
ROUTES = [
    ("GET", "/v1/context"), ("GET", "/v1/explain?slots=top&profile=v:a"), ("POST", "/v1/redemptions"),
    ("POST", "/v1/redemptions/00000000-0000-0000-0000-000000000001/confirm"), ("GET", "/v1/nowhere"), ("GET", "/nowhere"),
    ("GET", "/admin/v1/kills"), ("GET", "/admin/v1/segments"), ("POST", "/admin/v1/kills"), ("POST", "/v1/events"),
]  # fmt: skip


class TestEachRoute:
    """Whoever is answered, whatever is asked for."""

    @pytest.fixture
    async def client(self, clock: ManualClock) -> AsyncIterator[httpx.AsyncClient]:
        found = [{"id": k, "sha256": hashlib.sha256(k.encode()).hexdigest(), "kind": v} for k, v in KINDS.items()]
        keys, none, limiter = Keys(json.dumps(found)), None, Limiter(None, clock, Most(100, 6, 10), Health())
        decisions: Any = none
        reader, app = Reader(keys, RINGS, NOBODYS), service_app("t", pings={}, health=Health(), public=True)
        for routes in (shop, merchants):
            app.include_router(routes.router)
        app.state.deps = SimpleNamespace(keys=keys)  # who gets any further fails for want of the rest
        lane = Lane(app, Door(["localhost"]), decisions, keys, reader, limiter)
        transport = httpx.ASGITransport(lane, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    @pytest.mark.parametrize(
        ("key", "most"), [("", 6), ("wrong", 6), ("page", 6), ("server", 10), ("boss", 10)], ids=str
    )
    async def test_is_counted_by_the_address_or_the_key(
        self, client: httpx.AsyncClient, method: str, path: str, key: str, most: int
    ) -> None:
        headers = {"x-api-key": key} if key else {}
        said = [(await client.request(method, path, headers=headers)).status_code for _ in range(15)]
        assert [status == 429 for status in said] == [False] * most + [True] * (15 - most), said


class TestBodies:
    """Charged by the byte before anybody looks at them, whichever route they are for, and however they are sent."""

    @pytest.fixture
    async def client(self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
        def decode(body: bytes, **_: Any) -> Any:
            self.decoded += len(body)
            raise Problem("odd", 418, "Read")

        self.decoded = 0
        monkeypatch.setattr(chassis.http, "read_json", decode)
        found = [{"id": k, "sha256": hashlib.sha256(k.encode()).hexdigest(), "kind": v} for k, v in KINDS.items()]
        found[2]["role"] = "marketer"
        keys, none = Keys(json.dumps(found)), None
        limiter = Limiter(None, clock, Most(1000, 1000, 1000, bytes=1000), Health())
        decisions: Any = none
        reader, app = Reader(keys, RINGS, NOBODYS), service_app("t", pings={}, health=Health(), public=True)
        for routes in (shop, merchants):
            app.include_router(routes.router)
        app.state.deps = SimpleNamespace(keys=keys, reader=reader, limiter=limiter)
        lane = Lane(Limits(app, service="t"), Door(["localhost"]), decisions, keys, reader, limiter)
        transport = httpx.ASGITransport(lane)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client

    @pytest.mark.parametrize("pieces", [1, 4])
    @pytest.mark.parametrize(
        ("path", "key", "most"),
        [
            ("/v1/events", "page", 3), ("/v1/cart", "page", 3), ("/v1/events", "server", 312),
            ("/admin/v1/blocks", "boss", 312), ("/admin/v1/segments", "boss", 312),
        ],
    )  # fmt: skip
    async def test_of_an_address_or_a_key_are_read_up_to_so_many_bytes(
        self, client: httpx.AsyncClient, path: str, key: str, most: int, pieces: int
    ) -> None:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(pieces):
                yield b"x" * (320 // pieces)

        said = []
        for _ in range(most + 20):
            answer = await client.post(path, content=body(), headers={"x-api-key": key})
            said.append(answer.status_code)
            assert answer.status_code == 418 or answer.headers["retry-after"] == "60"
        assert said == [418] * most + [429] * 20
        assert self.decoded == 320 * most


@pytest.mark.servers
class TestTogether:
    @pytest.fixture
    async def limiters(self, redis_url: str, clock: ManualClock) -> AsyncIterator[tuple[Limiter, Limiter]]:
        redis = open_redis(redis_url)
        one, other = (Limiter(redis, clock, Most(16, 1000, 1000), Health()) for _ in range(2))
        yield one, other
        await redis.aclose()

    async def test_what_somebody_asks_of_two_gateways_counts_once_they_have_talked(
        self, limiters: tuple[Limiter, Limiter], clock: ManualClock
    ) -> None:
        one, other = limiters
        assert (taken(one, 6, person="a"), taken(other, 6, person="a")) == (6, 6)
        for _ in range(3):  # told once, however often it is said
            await one.share()
            await other.share()
        await one.share()
        assert (taken(one, 9, person="a"), taken(other, 1, person="b")) == (4, 1)
        await one.share()
        await other.share()
        assert taken(other, 9, person="a") == 0
        clock.advance(60_000)
        assert taken(other, 20, person="a") == 16

    async def test_who_asks_little_is_nobody_elses_concern(self, limiters: tuple[Limiter, Limiter]) -> None:
        one, other = limiters
        assert taken(one, 1, person="a") == 1
        await one.share()
        await other.share()
        assert await one._redis.keys("rate:person*") == []
        assert taken(other, 20, person="a") == 16

    async def test_without_redis_each_counts_for_itself(self, clock: ManualClock) -> None:
        nowhere = open_redis("redis://127.0.0.1:1")
        limiter = Limiter(nowhere, clock, Most(16, 1000, 1000), Health())
        assert taken(limiter, 6, person="a") == 6
        await limiter.share()
        assert taken(limiter, 20, person="a") == 10
        await nowhere.aclose()
