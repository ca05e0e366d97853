"""A kill switch, through real Varnish and two gateways: what is killed is gone when it says so, whoever is away."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from devstack.process import Child, free_port
from devstack.testing import until

from tests.e2e.shop import Services, Shop, behind_edge, words

pytestmark = [pytest.mark.servers, pytest.mark.slow]
SLOTS = "kill.top"


class Killing:
    """Blocks `first`, which is shown, and `second` behind it; a rule for everybody; two gateways and an edge."""

    def __init__(self, shop: Shop, second: Child, url: str) -> None:
        self.stack, self.admin, self.key, self.hits = shop.stack, shop.admin, shop.key, shop.hits
        self.doors, self.second = [shop.edge.url, shop.stack.url, url], second

    def reset(self) -> None:
        """Nothing is killed, and everything is shown."""
        for kill in self.admin.get("/kills").json()["kills"]:
            assert self.admin.delete(f"/kills/{kill['kind']}/{kill['key']}").status_code == 204
        slot = {"title": "a", "default": words("default")}
        self.save("slots", SLOTS, slot)
        for n, key in enumerate(("first", "second")):
            body = {"title": key, "status": "live", "slots": [SLOTS], "content": words(key), "priority": n}
            self.save("blocks", key, body)
        action = {"type": "percent", "value": 10}
        body = {"name": "ten", "status": "live", "label": "ten", "all_groups": True, "action": action}
        self.save("cart-rules", "ten", body)
        until(lambda: all(self.sees(door) == (["first"], ["ten"]) for door in self.doors))

    def save(self, noun: str, key: str, body: dict[str, Any]) -> None:
        found = self.admin.get(f"/{noun}/{key}")
        if found.status_code == 404:
            answer = self.admin.post(f"/{noun}", json={"key": key, **body})
        else:
            answer = self.admin.put(f"/{noun}/{key}", json=body, headers={"if-match": found.headers["etag"]})
        assert answer.status_code in (200, 201), answer.text

    def sees(self, door: str) -> tuple[list[str], list[str]]:
        """(blocks, messages) for a stranger; the status, where an edge takes a gateway that was stopped to be gone still."""
        answer = httpx.get(f"{door}/v1/decisions?slots={SLOTS}", headers=self.key, timeout=10)
        if answer.status_code != 200:
            return [str(answer.status_code)], []
        said = answer.json()
        return [b["key"] for b in said["slots"][SLOTS]["blocks"]], [m["label"] for m in said["messages"]]

    def kept(self) -> None:
        """The edge has a copy to give."""
        until(lambda: self.hits(f"slots={SLOTS}"))

    def sees_at_the_edge(self) -> str:
        """A block, or that nobody answers."""
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{self.doors[0]}/v1/decisions?slots={SLOTS}", headers=self.key, timeout=3)
            if answer.status_code == 200:
                return str(answer.json()["slots"][SLOTS]["blocks"][0]["key"])
        return "nothing"

    def killed(self) -> set[str]:
        """The names in the list."""
        return {kill["key"] for kill in self.admin.get("/kills").json()["kills"]}

    def kill(self, kind: str, key: str) -> dict[str, Any]:
        answer = self.admin.post("/kills", json={"kind": kind, "key": key})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def cart(self, door: str) -> int:
        body = {"lines": [{"id": "1", "price": 1000}]}
        answer = httpx.post(f"{door}/v1/cart", json=body, headers={"x-api-key": self.stack.secrets.secret}, timeout=10)
        return int(answer.json()["discount"])

    @contextmanager
    def lost(self) -> Iterator[None]:
        """No gateway runs, and Redis is emptied; then both start."""
        gateways = self.stack.children["gateway"], self.second
        for gateway in gateways:
            gateway.kill()
        redis.Redis.from_url(self.stack.redis).flushall()
        yield
        for gateway in gateways:
            gateway.start()

    def first_seen(self, door: str) -> list[str]:
        """What is shown as soon as anything is."""
        seen = list[list[str]]()
        until(lambda: (found := self.blocks(door)) not in (["503"], ["nobody"]) and seen.append(found) is None, 60)
        return seen[0]

    def blocks(self, door: str) -> list[str]:
        """What is shown, a status, or that nobody answers."""
        with contextlib.suppress(httpx.HTTPError):
            return self.sees(door)[0]
        return ["nobody"]

    @contextmanager
    def stopped(self, *services: str) -> Iterator[None]:
        """Processes that do not answer, and do not refuse either."""
        for name in services:
            self.stack.children[name].popen.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        try:
            yield
        finally:
            for name in services:
                self.stack.children[name].popen.send_signal(signal.SIGCONT)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def world(services: Services, state: Path) -> Iterator[Killing]:
    with behind_edge(services, state / "kill", BUDGET_MS="2000") as shop:
        stack, port = shop.stack, free_port()
        env = {**stack.env("gateway"), "GATEWAY_PORT": str(port)}
        second = Child("gateway", [sys.executable, "-m", "gateway"], stack.state / "second.log", env=env)
        second.start()
        second.wait_ready(port, seconds=60)
        yield Killing(shop, second, f"http://127.0.0.1:{port}")
        second.stop()


@pytest.fixture
def shop(world: Killing) -> Killing:
    world.reset()
    world.kept()
    return world


DONE = {"done": True, "missing": {"redis": False, "database": False, "gateways": [], "edges": [], "caches": []}}


class TestKill:
    def test_a_block_is_gone_everywhere_when_it_says_so_and_who_is_behind_it_is_shown(self, shop: Killing) -> None:
        assert shop.kill("block", "first") == {"kind": "block", "key": "first", "owner": "disabled", **DONE}
        assert [shop.sees(door)[0] for door in shop.doors] == [["second"]] * 3
        assert [k["key"] for k in shop.admin.get("/kills").json()["kills"]] == ["first"]

    def test_a_slot_shows_nothing_until_it_is_lifted(self, shop: Killing) -> None:
        assert shop.kill("slot", SLOTS) == {"kind": "slot", "key": SLOTS, "owner": "none", **DONE}
        assert [shop.sees(door)[0] for door in shop.doors] == [[]] * 3
        assert shop.admin.delete(f"/kills/slot/{SLOTS}").status_code == 204
        until(lambda: [shop.sees(door)[0] for door in shop.doors] == [["first"]] * 3)
        assert shop.admin.delete(f"/kills/slot/{SLOTS}").status_code == 404

    def test_a_rule_has_no_message_and_gives_nothing(self, shop: Killing) -> None:
        assert [shop.cart(door) for door in shop.doors[1:]] == [100, 100]
        assert shop.kill("rule", "ten") == {"kind": "rule", "key": "ten", "owner": "disabled", **DONE}
        assert [shop.sees(door)[1] for door in shop.doors] == [[]] * 3
        assert [shop.cart(door) for door in shop.doors[1:]] == [0, 0]

    @pytest.mark.parametrize("kind", ["block", "rule"])
    def test_whoever_owns_it_may_be_stalled(self, shop: Killing, kind: str) -> None:
        owner, key = {"block": ("content_svc", "first"), "rule": ("promo_svc", "ten")}[kind]
        with shop.stopped(owner):
            began = time.monotonic()
            said = shop.kill(kind, key)
            assert (said["owner"], said["missing"]) == ("away", {**DONE["missing"], "database": kind == "block"})
            for door in shop.doors:
                blocks, messages = shop.sees(door)
                assert key not in [*blocks, *messages]
            assert kind == "block" or shop.cart(shop.doors[1]) == 0
            assert time.monotonic() - began < 30, "nobody waits for who does not answer"
        until(lambda: shop.sees(shop.doors[0])[0] == (["second"] if kind == "block" else ["first"]))

    def test_a_service_that_does_not_know_of_it_brings_nothing_back(self, shop: Killing) -> None:
        shop.kill("block", "first")
        body = {"title": "first", "status": "live", "slots": [SLOTS], "content": words("first"), "priority": 0}
        shop.save("blocks", "first", body)
        shop.save("slots", SLOTS, {"title": "b", "default": words("default")})
        time.sleep(1)
        assert [shop.sees(door)[0] for door in shop.doors] == [["second"]] * 3

    def test_redis_may_be_stalled(self, shop: Killing) -> None:
        store = redis.Redis.from_url(shop.stack.redis)
        store.execute_command("CLIENT", "PAUSE", "6000", "ALL")
        said = shop.kill("block", "first")
        assert (said["owner"], said["done"]) == ("disabled", False)
        until(lambda: [shop.sees(door)[0] for door in shop.doors] == [["second"]] * 3, seconds=2)

    def test_a_redis_that_forgot_is_told_again(self, shop: Killing) -> None:
        shop.kill("slot", SLOTS)
        redis.Redis.from_url(shop.stack.redis).flushall()
        until(lambda: [k["key"] for k in shop.admin.get("/kills").json()["kills"]] == [SLOTS])
        assert [shop.sees(door)[0] for door in shop.doors] == [[]] * 3

    @pytest.mark.parametrize("how", ["empty", "older"])
    def test_nor_does_one_that_lost_some_when_the_next_is_killed(self, shop: Killing, how: str) -> None:
        store = redis.Redis.from_url(shop.stack.redis)
        shop.kill("slot", SLOTS)
        if how == "empty":
            store.flushall()
        else:  # as after failing over to a replica that was behind
            with store.pipeline() as pipe:
                pipe.decr("ver:kill").hdel("kills", f"slot:{SLOTS}").execute()
        shop.kill("rule", "ten")
        until(lambda: shop.killed() == {SLOTS, "ten"}, seconds=5)
        time.sleep(1)
        assert shop.killed() == {SLOTS, "ten"}
        assert [shop.sees(door) for door in shop.doors] == [([], [])] * 3

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"kind": "segment", "key": "a"}, "/kind"), ({"kind": "block"}, "/key"), ({"kind": "block", "key": "A b"}, "/key"),
            ({"kind": "block", "key": "a\n"}, "/key"), ({"kind": "block", "key": "a", "x": 1}, "/x"),
        ],
    )  # fmt: skip
    def test_what_is_no_kill_is_pointed_at(self, world: Killing, body: dict[str, Any], pointer: str) -> None:
        answer = world.admin.post("/kills", json=body)
        assert (answer.status_code, [e["pointer"] for e in answer.json()["errors"]]) == (422, [pointer])
        refused = httpx.post(f"{world.stack.url}/admin/v1/kills", json=body, headers=world.key)
        assert refused.status_code in (401, 403)


class TestLost:
    """Redis is emptied, and every gateway restarted."""

    def test_what_was_killed_is_not_shown_from_the_first_answer_on(self, shop: Killing) -> None:
        shop.kill("slot", SLOTS)
        with shop.lost():
            pass
        assert [shop.first_seen(door) for door in shop.doors[1:]] == [[], []]
        assert shop.killed() == {SLOTS}

    def test_nor_is_it_while_content_svc_is_dead_or_after_it(self, shop: Killing) -> None:
        shop.kill("slot", SLOTS)
        content = shop.stack.children["content_svc"]
        with shop.lost():
            content.kill()
        try:
            until(lambda: [shop.blocks(door) for door in shop.doors[1:]] == [["503"]] * 2, 60)
            time.sleep(1)
            assert [shop.blocks(door) for door in shop.doors[1:]] == [["503"]] * 2
        finally:
            content.start()
        assert [shop.first_seen(door) for door in shop.doors[1:]] == [[], []]

    def test_what_was_killed_while_content_svc_was_dead_is_kept_and_switched_off_when_it_is_back(
        self, shop: Killing
    ) -> None:
        content = shop.stack.children["content_svc"]
        content.kill()
        try:
            said = shop.kill("block", "first")
        finally:
            content.start()
        assert (said["owner"], said["missing"]["database"]) == ("away", True)
        until(lambda: [kill["owed"] for kill in shop.admin.get("/kills").json()["kills"]] == [False])
        assert shop.admin.get("/blocks/first").json()["status"] == "disabled"
        time.sleep(1)
        with shop.lost():
            pass
        assert [shop.first_seen(door) for door in shop.doors[1:]] == [["second"]] * 2
        assert shop.killed() == {"first"}

    def test_what_was_lifted_stays_so(self, shop: Killing) -> None:
        shop.kill("rule", "ten")
        shop.kill("slot", SLOTS)
        assert shop.admin.delete(f"/kills/slot/{SLOTS}").status_code == 204
        with shop.lost():
            pass
        assert [shop.first_seen(door) for door in shop.doors[1:]] == [["first"]] * 2
        assert shop.killed() == {"ten"}


class TestStopped:
    """A gateway that was stopped, and one that stops the moment it has answered."""

    def test_one_that_goes_on_shows_nothing_that_ended_meanwhile(self, shop: Killing) -> None:
        for n in range(3):
            with shop.stopped("gateway"):
                for path in ("blocks/first", "blocks/second", "cart-rules/ten"):
                    answer = httpx.post(
                        f"{shop.doors[2]}/admin/v1/{path}/disable", headers=shop.admin.headers, timeout=30
                    )
                    assert answer.status_code == 200
                time.sleep(2)
            assert (shop.sees(shop.doors[1]), shop.cart(shop.doors[1])) == ((["kill.top:default"], []), 0), n
            shop.reset()

    def test_what_is_disabled_is_forgotten_by_the_edge_though_the_gateway_stops_at_that_instant(
        self, shop: Killing
    ) -> None:
        for n in range(5):
            shop.kept()
            assert shop.admin.post("/blocks/first/disable").status_code == 200
            with shop.stopped("gateway"):
                assert shop.sees_at_the_edge() != "first", n
            shop.reset()

    def test_what_is_killed_while_it_is_on_its_way_is_not_given(self, shop: Killing) -> None:
        action = {"type": "percent", "value": 10}
        rule = {
            "name": "hush",
            "status": "live",
            "all_groups": True,
            "coupon": "HUSH",
            "uses_total": 5,
            "action": action,
        }
        shop.save("cart-rules", "hush", rule)

        def wish(key: str) -> httpx.Response:
            sent = {"x-api-key": shop.stack.secrets.secret, "idempotency-key": key}
            body = {"coupon": "HUSH", "customer": "ann"}
            return httpx.post(f"{shop.stack.url}/v1/redemptions", json=body, headers=sent, timeout=30)

        until(lambda: wish("before").status_code == 201)
        with ThreadPoolExecutor(1) as pool:
            with shop.stopped("promo_svc"):
                on_its_way = pool.submit(wish, "meanwhile")
                time.sleep(0.3)
                shop.kill("rule", "hush")
            refused = on_its_way.result()
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:footfall:problem:coupon-not-available")
        assert wish("before").json()["status"] == "reserved", "what was given before the kill stays given"
