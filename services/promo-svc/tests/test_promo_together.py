"""What one cart may cost, whatever rules there are: at save, and when it is evaluated."""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import pytest
from chassis.problems import Problem
from promo_svc import snapshot
from promo_svc.domain import together
from promo_svc.domain.cart import DEAR_CART_S, DEAR_S, MOST_LINES, DearCart, Line, Request
from promo_svc.domain.evaluate import RuleSet
from promo_svc.domain.probe import weigh
from promo_svc.domain.rule import Rule, rule_of
from promo_svc.domain.together import MOST_WORST, dearest, weigh_together

NOW = 1_800_000_000_000
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
        assert dearest(own, [(own, 0.1), (rule(2, **more), 0.1)], NOW) == pytest.approx(0.2 if counted else 0.1)

    def test_what_is_of_all_websites_counts_at_each_and_the_dearest_is_said(self) -> None:
        at_both, some = rule(1), [(rule(2, websites=["at"]), 0.1), (rule(3, websites=["de"]), 0.15)]
        assert dearest(at_both, [(at_both, 0.05), *some], NOW) == pytest.approx(0.2)

    def test_rules_that_follow_each_other_do_not_add_up(self) -> None:
        always, weeks = rule(1), [rule(n, starts_at=NOW + 7 * n, ends_at=NOW + 7 * n + 7) for n in range(2, 30)]
        assert dearest(always, [(each, 0.1) for each in (always, *weeks)], NOW) == pytest.approx(0.2)

    def test_nobody_types_all_coupons(self) -> None:
        coupons = [(rule(n, coupon=f"C{n}"), n / 1000) for n in range(2, 100)]
        assert dearest(rule(1), [(rule(1), 0.001), *coupons], NOW) == pytest.approx(0.001 + sum(range(95, 100)) / 1000)


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
        assert [number for number, _ in large] == [0, 1, 2, 3] * 2
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
            assert "over 250 ms together" in detail
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
