"""What conditions answer: codes, words, categories, lines, lists, sums, days."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_svc.domain import profile as people
from segment_svc.domain.activity import Activity, pack
from segment_svc.domain.definition import Definition
from segment_svc.domain.event_fields import EVENTS
from segment_svc.domain.facts import Facts
from segment_svc.domain.leaves.where import where
from segment_svc.domain.ruleset import RuleSet

NOW, HOUR, DAY = 1_795_000_000_000, 3_600_000, 86_400_000
ZONE = ZoneInfo("Europe/Berlin")


def definition(condition: Any) -> Definition:
    return Definition(1, "s", 1, "both", (), condition, (), (0,))


def person(*events: tuple[str, dict[str, Any]], kind: str = "customer") -> people.Profile:
    found = people.empty(kind)
    for i, (name, props) in enumerate(events):
        people.fold(found, Activity(i, name, NOW - 1000 + i, "main", pack(props)), NOW)
    return found


def orders(**more: Any) -> dict[str, Any]:
    return {"orders": {"measure": "sum", "op": "gt", "value": 1, **more}}


def holds(condition: Any, who: people.Profile) -> bool:
    rules = RuleSet.compile([definition(condition)], ZONE)
    answer = bool(rules.timeline(who, NOW, horizon_ms=DAY).bits & 1)
    assert rules.explain("s", who, NOW)["result"] is answer
    return answer


class TestAnswers:
    def test_codes_are_text_and_words_have_no_case(self) -> None:
        viewer = person(
            ("product_view", {"sku": "01067", "name": "STRASSE", "brand": "Cafe\u0301", "category": "shoes/running"})
        )

        def viewed(field: str, op: str, value: Any) -> bool:
            return holds(
                {"events": {"type": "product_view", "where": {"field": field, "op": op, "value": value}}}, viewer
            )

        assert viewed("sku", "eq", "01067")
        assert not viewed("sku", "eq", "1067")
        assert viewed("name", "eq", "straße")
        assert viewed("brand", "contains", "CAF\u00c9")
        for op in ("eq", "starts_with", "includes"):
            assert viewed("category", op, "shoes")
            assert viewed("category", op, "shoes/running")
            assert not viewed("category", op, "shoes/run")
            assert not viewed("category", op, "Shoes")
        assert viewed("category", "in", ["x", "shoes"])
        assert not viewed("category", "ne", "shoes")
        assert viewed("category", "not_in", ["shoes/run", "x"])

    def test_several_predicates_on_lines_hold_on_one_and_the_same_line(self) -> None:
        lines = [{"sku": "A", "category": "shoes", "quantity": 1}, {"sku": "B", "category": "hats", "quantity": 5}]
        buyer = person(("order_placed", {"order_id": "1", "items": lines}), ("cart_update", {"items": lines}))

        def bought(*tests: tuple[str, str, Any], group: str = "all") -> bool:
            predicates = [{"field": f"items.{f}", "op": op, "value": v} for f, op, v in tests]
            where = {group: [*predicates, {"field": "order_id", "op": "exists"}] if group == "all" else predicates}
            return holds({"orders": {"measure": "count", "op": "gt", "value": 0, "where": where}}, buyer)

        assert bought(("sku", "eq", "A"), ("category", "eq", "shoes"))
        assert not bought(("sku", "eq", "A"), ("category", "eq", "hats"))
        assert bought(("sku", "eq", "A"), ("category", "eq", "hats"), group="any")
        assert not bought(("sku", "eq", "A"), ("quantity", "gt", 1))
        assert bought(("sku", "eq", "A"), ("category", "ne", "hats"))
        assert not bought(("sku", "ne", "A"))
        assert not bought(("sku", "ne", "A"), ("sku", "ne", "Z"))
        assert bought(("sku", "not_in", ["Y", "Z"]))
        listed = {
            "list": {
                "name": "cart",
                "where": [{"field": "sku", "value": "A"}, {"field": "quantity", "op": "gt", "value": 1}],
            }
        }
        assert not holds(listed, buyer)

    def test_lists_inside_lists_and_dotted_names_are_looked_into(self) -> None:
        props = {
            "rows": [{"tags": ["a", ["b"]]}, [{"tags": []}], 7],
            "utm.source": "Mail",
            "deep": {"er": {"sku": "X1"}},
            "a.": 1,
        }
        who = person(("custom.form", props))

        def sent(field: str, op: str, value: Any) -> bool:
            return holds(
                {"last_event": {"type": "custom.form", "has": {"field": field, "op": op, "value": value}}}, who
            )

        assert sent("rows.tags", "eq", "B")
        assert not sent("rows.tags", "ne", "b")
        assert sent("rows.tags", "not_in", ["c"])
        assert sent("utm.source", "eq", "mail")
        assert sent("deep.er.sku", "eq", "X1")
        assert sent("a.", "eq", 1)
        assert not sent("b.", "eq", 1)
        assert not sent("deep.er.sku", "eq", "x1")

    def test_an_attribute_of_several_values_answers_by_any_or_none(self) -> None:
        who = person(("identify", {"attributes": {"likes": ["a", "c"], "home": {"city": "Köln", "postcode": "01067"}}}))
        liked = {"attribute": "likes", "op": "in", "value": ["A", "b"]}
        assert holds(liked, who)
        assert not holds({"all": [liked, {"attribute": "likes", "op": "not_in", "value": ["c", "d"]}]}, who)
        assert holds({"attribute": "home.city", "op": "eq", "value": "KO\u0308LN"}, who)
        assert holds({"attribute": "home.postcode", "op": "eq", "value": "01067"}, who)

    def test_a_negative_filter_does_not_bring_cancelled_orders_back(self) -> None:
        order = {"order_id": "1", "status": "cancelled", "grand_total": 10.0}
        buyer = person(("order_placed", order))

        def counted(op: str, value: Any) -> bool:
            return holds(orders(measure="count", value=0, where={"field": "status", "op": op, "value": value}), buyer)

        assert not counted("ne", "lost")
        assert not counted("not_in", ["lost"])
        assert counted("eq", "Cancelled")

    def test_sums_are_exact(self) -> None:
        most = 9007199254740991
        rich = person(*(("order_placed", {"order_id": str(i), "grand_total": float(most)}) for i in range(150)))
        for literal, answer in ((most * 150 - 1, True), (most * 150, False), (most * 150 + 1, False)):
            assert holds(orders(value=literal), rich) is answer
        thirds = person(*(("order_placed", {"order_id": str(i), "grand_total": x}) for i, x in enumerate((0.1, 0.2))))
        assert holds({"orders": {"measure": "sum", "op": "eq", "value": 0.3}}, thirds)
        assert holds({"orders": {"measure": "avg", "op": "eq", "value": 0.15}}, thirds)

    @pytest.mark.parametrize(
        ("to", "inside"), [("2026-11-20", True), ("2026-11-19", False), ("2026-11-20T12:00:00", False)]
    )
    def test_a_range_of_days_includes_its_last_day_to_its_end_in_the_zone(self, to: str, inside: bool) -> None:
        who = people.empty("visitor")
        at = 1_795_215_599_999 - 0  # 2026-11-20T23:59:59.999+01:00
        people.fold(who, Activity(1, "page_view", at, "main", pack({})), at)
        condition = {"events": {"type": "page_view", "window": {"from": "2026-11-01", "to": to}}}
        rules = RuleSet.compile([definition(condition)], ZONE)
        assert bool(rules.timeline(who, at, horizon_ms=0).bits) is inside
        later = people.empty("visitor")
        people.fold(later, Activity(1, "page_view", at + 1, "main", pack({})), at + 1)
        assert not rules.timeline(later, at + 1, horizon_ms=0).bits

    @given(
        st.lists(st.sampled_from(["A", "a", "AB", "shoes", "shoes/x", "", "1"]), max_size=5),
        st.sampled_from(["sku", "name", "category"]),
        st.sampled_from(["eq", "ne", "starts_with", "in"]),
        st.sampled_from(["A", "a", "shoes", "shoes/", "1"]),
    )
    def test_looking_for_bytes_first_changes_no_answer(
        self, values: list[str], field: str, op: str, value: str
    ) -> None:
        who = person(*(("product_view", {field: v}) for v in values))
        raw = {"field": field, "op": op, "value": [value] if op == "in" else value}
        accept = where(raw, EVENTS["product_view"], "", lambda *fault: pytest.fail(str(fault)))
        assert accept is not None
        expected = [at for at, props in Facts(who).events("product_view", ()) if accept.holds(props)]
        assert Facts(who).matching("product_view", (), accept) == expected


class Name(str):
    """A key that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)


class TestPicked:
    """Hand-picked people: overrides of a segment that nobody, or everybody, is in."""

    PICKS = st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.none() | st.integers(0, 6)), max_size=5)

    @given(picks=PICKS, now=st.integers(0, 7), everybody=st.booleans())
    def test_a_pick_holds_until_its_end_and_out_beats_in_which_beats_the_condition(
        self, picks: list[tuple[str, bool, int | None]], now: int, everybody: bool
    ) -> None:
        condition = {"events": {"type": "search", "count": {"op": "lt" if everybody else "gte", "value": 1}}}
        overrides = tuple((f"c:{who}", include, until) for who, include, until in picks)
        rules = RuleSet.compile([Definition(1, "s", 1, "both", (), condition, overrides, (0,))], ZONE)

        def inside(at: int) -> int:
            def listed(include: bool) -> bool:
                return any(w == "a" and i is include and (u is None or at < u) for w, i, u in picks)

            return int(not listed(False) and (listed(True) or everybody))

        found = rules.timeline(people.empty("customer"), now, horizon_ms=DAY, key="c:a")
        assert found.bits == inside(now)
        ahead = [inside(at) for at in range(now, 10)]
        assert found.flips == [(now + i, b) for i, (a, b) in enumerate(pairwise(ahead), 1) if a != b]

    def test_however_many_are_picked_nobody_is_compared_with_all_of_them(self) -> None:
        overrides = tuple((f"c:vip-{i}", i % 2 == 0, NOW + 5) for i in range(1000))
        nobody = {"events": {"type": "search", "count": {"op": "gte", "value": 1}}}
        rules = RuleSet.compile([Definition(1, "s", 1, "both", (), nobody, overrides, (0,))], ZONE)
        Name.compared = 0
        for who, bits in (("c:vip-500", 1), ("c:vip-501", 0), ("c:me", 0)):
            assert rules.timeline(people.empty("customer"), NOW, horizon_ms=DAY, key=Name(who)).bits == bits
        assert Name.compared < 100


class TestAhead:
    def test_what_is_dated_ahead_ends_what_is_known_and_costs_nothing_before(self) -> None:
        where = {"field": "query", "op": "contains", "value": "zzz"}
        searched = {"events": {"type": "search", "count": {"op": "gte", "value": 1}, "where": where}}
        rules = RuleSet.compile([Definition(0, "s", 1, "both", (), searched, (), (0,))])
        person = people.empty("visitor")
        for number in range(90):
            ahead = NOW + (number - 49) * HOUR  # 50 that were, 40 to come
            people.fold(person, Activity(number, "search", ahead, "main", pack({"query": f"zzz{number}"})), NOW)
        known = rules.timeline(person, NOW, horizon_ms=365 * DAY)
        assert (known.bits, known.flips, known.next_at, len(person.pending)) == (1, [], NOW + HOUR, 40)
        people.fold(person, Activity(99, "page_view", NOW, "main", pack({})), NOW)
        again = rules.timeline(person, NOW, horizon_ms=365 * DAY, known=known, touched={"page_view"})
        assert (again.flips is known.flips, again.next_at) == (True, NOW + HOUR)
        people.fold(person, Activity(100, "search", NOW + 1, "main", pack({"query": "b"})), NOW)
        assert rules.timeline(person, NOW, horizon_ms=365 * DAY, known=again, touched={"search"}).next_at == NOW + 1

    def test_what_would_come_without_an_event_dated_ahead_is_not_foretold(self) -> None:
        viewed = {"events": {"type": "product_view", "window": {"last": "P1D"}}}
        rules = RuleSet.compile([definition(viewed)])
        viewer = people.empty("visitor")
        for number, at in enumerate((NOW - 23 * HOUR, NOW + HOUR // 2)):
            people.fold(viewer, Activity(number, "product_view", at, "main", pack({})), NOW)
        known = rules.timeline(viewer, NOW, horizon_ms=7 * DAY)
        assert (known.bits, known.flips, known.next_at) == (1, [], NOW + HOUR // 2)
        due = people.advance(viewer, NOW + HOUR // 2)
        seen = rules.timeline(viewer, NOW + HOUR // 2, horizon_ms=7 * DAY, known=known, touched=due)
        assert seen.flips == [(NOW + DAY + HOUR // 2, 0)]
