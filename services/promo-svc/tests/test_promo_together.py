"""What one cart may cost, whatever rules there are: at save, and when it is evaluated."""

from __future__ import annotations

import asyncio
import itertools
import threading
from random import Random
from typing import Any

import httpx
import pytest
from chassis.auth import Actor, ServiceTokens
from chassis.problems import Problem
from promo_svc import snapshot
from promo_svc.domain import together
from promo_svc.domain.cart import DEAR_CART_S, DEAR_S, MOST_LINES, DearCart, Line, Request
from promo_svc.domain.evaluate import RuleSet
from promo_svc.domain.probe import TRIES, weigh
from promo_svc.domain.rule import Rule, rule_of
from promo_svc.domain.together import MOST_WORST, dearest, weigh_together
from promo_svc.flows import save_rule
from promo_svc.schemas import CartRule

NOW = 1_800_000_000_000
SECRET = "s" * 32
BODY = {"name": "n", "status": "live", "all_groups": True, "action": {"type": "percent", "value": 1}}


def rule(number: int = 0, **more: Any) -> Rule:
    return rule_of(number, f"r{number}", 1, {**BODY, **more})


class TestScopes:
    @pytest.mark.parametrize(
        ("more", "counted"),
        [
            ({}, True), ({"websites": ["de"]}, True), ({"websites": ["at"]}, False), ({"groups": ["b2b"]}, True),
            ({"groups": ["b2b"], "all_groups": False}, True), ({"groups": ["b2c"], "all_groups": False}, False),
            ({"ends_at": NOW}, False), ({"ends_at": NOW + 1}, True), ({"starts_at": NOW + 10}, False),
            ({"starts_at": NOW + 9}, True), ({"segments": {"any_of": ["vip"]}}, True), ({"coupon": "TEN"}, True),
        ],
    )  # fmt: skip
    def test_what_one_cart_can_be_for_counts_together(self, more: Any, counted: bool) -> None:
        own = rule(1, websites=["de"], groups=["b2b"], all_groups=False, ends_at=NOW + 10)
        assert dearest(own, [(own, 0.1), (rule(2, **more), 0.1)], NOW).seconds == pytest.approx(0.2 if counted else 0.1)

    def test_what_is_of_all_websites_counts_at_each_and_the_dearest_is_said(self) -> None:
        at_both, some = rule(1), [(rule(2, websites=["at"]), 0.1), (rule(3, websites=["de"]), 0.15)]
        assert dearest(at_both, [(at_both, 0.05), *some], NOW).seconds == pytest.approx(0.2)

    def test_rules_that_follow_each_other_do_not_add_up(self) -> None:
        always, weeks = rule(1), [rule(n, starts_at=NOW + 7 * n, ends_at=NOW + 7 * n + 7) for n in range(2, 30)]
        assert dearest(always, [(each, 0.1) for each in (always, *weeks)], NOW).seconds == pytest.approx(0.2)

    def test_nobody_types_all_coupons(self) -> None:
        coupons = [(rule(n, coupon=f"C{n}"), n / 1000) for n in range(2, 100)]
        assert dearest(rule(1), [(rule(1), 0.001), *coupons], NOW).seconds == pytest.approx(
            0.001 + sum(range(95, 100)) / 1000
        )


def plainly(own: Rule, costs: Any) -> float:
    """Every website, group and instant there is, one by one."""
    websites = {"", *(name for each, _ in costs for name in each.websites)}
    groups = {"", *(name for each, _ in costs for name in each.groups)}
    starts = {max(NOW, each.starts_at or 0) for each, _ in costs}

    def on(each: Rule, website: str, group: str, at: int) -> bool:
        here = (not each.websites or website in each.websites) and (each.all_groups or group in each.groups)
        return here and (each.starts_at or 0) <= at < (each.ends_at or NOW * 2)

    return max(
        (
            sum(cost for each, cost in costs if on(each, *cart))
            for cart in itertools.product(websites, groups, starts)
            if on(own, *cart)
        ),
        default=0.0,
    )


def made_up(random: Random, number: int) -> Rule:
    begins = random.choice([None, *range(NOW - 1, NOW + 5)])
    return rule(
        number, websites=random.sample(["de", "at", "ch"], random.randint(0, 2)), all_groups=random.random() < 0.3,
        groups=random.sample("abcde", random.randint(0, 3)), starts_at=begins,
        ends_at=random.choice([None, (begins or NOW) + random.randint(1, 4)]),
    )  # fmt: skip


class TestSwept:
    @pytest.mark.parametrize("seed", range(60))
    def test_the_dearest_cart_is_found_as_by_looking_at_every_one(self, seed: int) -> None:
        random = Random(seed)
        rules = [made_up(random, number) for number in range(random.randint(1, 9))]
        costs = [(each, random.randint(1, 9) / 10) for each in rules]
        assert dearest(rules[0], costs, NOW).seconds == pytest.approx(plainly(rules[0], costs))

    def test_groups_that_the_same_rules_are_for_are_looked_at_once(self) -> None:
        groups = [[f"g{n}-{k}" for k in range(200)] for n in range(50)]
        costs = [(rule(n, groups=found, starts_at=NOW + n), 0.1) for n, found in enumerate(groups)]
        assert len(together._distinct(rule(99), costs)) == 50


class TestBounded:
    def test_what_takes_too_long_to_find_out_is_refused_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looks = itertools.count()
        monkeypatch.setattr(save_rule, "thread_time", lambda: next(looks) / 1_000)  # as if each look took 1 ms
        body = CartRule.model_validate({**BODY, "status": "live"}).model_dump(mode="json")
        others = [rule(n, groups=[f"g{n}"], starts_at=NOW + n) for n in range(1, 1_000)]
        assert save_rule.run("own", body, others[:20], NOW).key == "own"
        with pytest.raises(Problem) as refused:
            save_rule.run("own", body, others, NOW)
        assert (refused.value.status, refused.value.slug) == (422, "rule-invalid")
        (error,) = refused.value.body()["errors"]
        assert error["pointer"] == "/websites"
        assert "takes over 4 s" in error["detail"]


@pytest.mark.servers
class TestBeside:
    async def test_nobody_waits_for_a_rule_that_is_tried_and_what_joins_it_meanwhile_is_tried_with_it(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried, going, real = [], threading.Event(), save_rule.run

        def slow(key: str, body: Any, others: Any, now_ms: int) -> Rule:
            if key == "slow":
                tried.append({each.key for each in others})
                going.wait(30)
            return real(key, body, others, now_ms)

        async def save(key: str, websites: str, who: str) -> httpx.Response:
            token = ServiceTokens(SECRET, "test").issue("promo-svc", Actor(who, "marketer", (websites,)))
            body = {**BODY, "key": key, "websites": [websites]}
            return await client.post(
                "/v1/cart-rules", json=body, auth=lambda r: r, headers={"authorization": f"Bearer {token}"}
            )

        monkeypatch.setattr(save_rule, "run", slow)
        assert (await save("before", "at", "bob")).status_code == 201
        waiting = asyncio.create_task(save("slow", "de", "ann"))
        try:
            while not tried:
                await asyncio.sleep(0.01)
            assert (await save("there", "at", "bob")).status_code == 201
            assert (await client.post("/v1/cart-rules/before/disable")).status_code == 200
            assert (await client.post("/v1/cart-rules", json={**BODY, "key": "everywhere"})).status_code == 201
            assert not waiting.done()
        finally:
            going.set()
        assert (await waiting).status_code == 201
        assert tried == [{"before"}, {"there", "everywhere"}]


class TestWeighed:
    def test_the_carts_are_as_large_as_any_and_what_took_long_once_is_tried_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[int, tuple[Line, ...]]] = []

        def spent(alone: RuleSet, content: tuple[Line, ...], _: Any) -> float:
            seen.append((alone.rules[0].id, content))
            return DEAR_CART_S / 3.5

        monkeypatch.setattr(together, "spent", spent)
        where = {"line": "attributes.x", "op": "contains", "value": "q"}
        rules = [rule(n, condition={"products": {"where": where}}, websites=["de"]) for n in range(4)]
        others = [*rules, rule(9, websites=["at"])]
        weigh_together(rules[0], others[1:3], float, NOW)
        assert {number for number, _ in seen} == {0, 1, 2}
        assert len([1 for number, content in seen if len(content) == MOST_LINES]) == 3 * MOST_WORST
        assert any(sum(len(str(line.attributes.get("x", ""))) for line in content) > 150_000 for _, content in seen)
        seen.clear()
        with pytest.raises(DearCart):
            weigh_together(rules[0], others, float, NOW)
        large = [(number, content) for number, content in seen if len(content) == MOST_LINES]
        assert [number for number, _ in large] == [0, 1, 2, 3] * TRIES
        assert large[0][1] != large[4][1]

    def test_each_rule_is_compiled_once_however_many_carts_are_tried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compile_of, compiled = RuleSet.compile, list[Rule]()

        def counted(version: int, rules: list[Rule]) -> RuleSet:
            compiled.extend(rules)
            return compile_of(version, rules)

        monkeypatch.setattr(RuleSet, "compile", counted)
        rules = [rule(n) for n in range(3)]
        weigh_together(rules[0], rules[1:], float, NOW)
        weigh(rules[0], float)
        assert compiled == [*rules, rules[0]]

    @pytest.mark.servers
    async def test_a_rule_with_which_those_of_its_website_take_long_is_not_saved_and_says_why(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(together, "spent", lambda *_: DEAR_CART_S / 2.5)

        async def save(key: str, *websites: str, **more: Any) -> httpx.Response:
            return await client.post("/v1/cart-rules", json={**BODY, "key": key, "websites": websites, **more})

        assert [(await save(key, "de")).status_code for key in ("one", "two")] == [201, 201]
        for key, websites in (("three", ["de"]), ("all", []), ("both", ["at", "de"])):
            refused = await save(key, *websites)
            assert (refused.status_code, refused.json()["type"]) == (422, "urn:footfall:problem:rule-invalid")
            detail = refused.json()["errors"][0]["detail"]
            assert "over 500 ms together" in detail
            assert "the live rules of de take" in detail
            assert refused.json()["errors"][0]["pointer"] == "/websites"
            assert "one" not in detail.split()
            assert "two" not in detail.split()
        assert (await save("there", "at")).status_code == 201
        assert (await save("draft", "de", status="draft")).status_code == 201
        assert (await client.post("/v1/cart-rules/one/disable")).status_code == 200
        assert (await save("three", "de")).status_code == 201


class TestEvaluated:
    @pytest.mark.parametrize(("count", "dear"), [(2, False), (20, True)])
    def test_a_cart_has_all_of_its_rules_or_no_answer(
        self, monkeypatch: pytest.MonkeyPatch, count: int, dear: bool
    ) -> None:
        told, looks, before = [], itertools.count(), snapshot.DEAR_CARTS._value.get()
        monkeypatch.setattr(snapshot, "tell", lambda *said: told.append(said))
        # The clock is looked at twice for each rule, which is in time.
        monkeypatch.setattr(snapshot, "thread_time", lambda: 0.9 * DEAR_S * next(looks))
        rules = [rule(n) for n in range(count)]
        published, asked = (
            snapshot.Published(1, RuleSet.compile(1, rules), []),
            Request("main", NOW, (Line("a", 10_000),)),
        )
        if dear:
            with pytest.raises(Problem) as refused:
                published.evaluate(asked)
            assert (refused.value.status, refused.value.slug) == (503, "busy")
        else:
            assert len(published.evaluate(asked)["applied"]) == count
        assert snapshot.DEAR_CARTS._value.get() == before + dear
        assert told == [], "no rule is said to be broken"
