"""A person is the fold of what they did: order, repetition and batching do not matter, and a merge is the union."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from segment_svc.domain import bounds
from segment_svc.domain import profile as people
from segment_svc.domain.activity import Activity, pack
from segment_svc.domain.checks import among, check
from segment_svc.domain.definition import Definition
from segment_svc.domain.facts import Facts
from segment_svc.domain.profile import Profile
from segment_svc.domain.ruleset import RuleSet

NOW, DAY, HOUR = 1_000_000, 1_000, 3_600_000
DAY_MS = 24 * HOUR


def activity(number: int, kind: str, at: int) -> Activity:
    item = {"sku": f"S{number % 3}", "quantity": 1 + number % 2, "price": number % 5}
    props: dict[str, Any] = {
        "add_to_cart": {"item": item}, "remove_from_cart": {"item": item},
        "cart_update": {"items": [item], "subtotal": number},
        "order_placed": {"order_id": f"o{number % 4}", "grand_total": number},
        "order_status_changed": {"order_id": f"o{number % 4}", "status": ["complete", "cancelled"][number % 2]},
        "refund_issued": {"order_id": f"o{number % 4}", "amount": 1}, "identify": {"attributes": {"tier": number % 3}},
        "group_assigned": {"group": f"g{number % 2}"},
    }.get(kind, {"sku": f"S{number % 3}"})  # fmt: skip
    return Activity(number, kind, at, "main", pack(props))


KINDS = [
    "product_view", "add_to_cart", "remove_from_cart", "cart_update", "order_placed", "order_status_changed",
    "refund_issued", "identify", "group_assigned",
]  # fmt: skip
log = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(NOW - 50 * DAY, NOW + 5 * DAY)), max_size=40).map(
    lambda rows: [activity(i, kind, at) for i, (kind, at) in enumerate(rows)]
)


def folded(events: list[Activity], now: int = NOW) -> Profile:
    person = people.empty("visitor")
    for event in events:
        people.fold(person, event, now)
    return person


def state(person: Profile) -> bytes:
    copy = people.decode(people.encode(person))
    copy.log = dict(sorted(copy.log.items()))
    copy.registers = dict(sorted(copy.registers.items()))
    return people.encode(copy)


class TestFold:
    @given(log, st.randoms(use_true_random=False))
    def test_neither_order_nor_repetition_matters(self, events: list[Activity], rng: Any) -> None:
        shuffled = [*events, *events[::3]]
        rng.shuffle(shuffled)
        assert state(folded(shuffled)) == state(folded(events))

    @given(
        st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 10**6)), max_size=25, unique_by=lambda row: row[1]),
        st.sampled_from([("product_view", bounds.MOST_BYTES), ("custom.quiz", bounds.MOST_CUSTOM_BYTES)]),
        st.randoms(use_true_random=False),
    )
    def test_of_large_events_the_newest_that_fit_are_kept_in_whatever_order_they_come(
        self, rows: list[tuple[int, int]], bound: tuple[str, int], rng: Any
    ) -> None:
        kind, most = bound
        events = [Activity(i, kind, at, "main", pack({"x": "y" * size})) for i, (size, at) in enumerate(rows)]
        newest, left = [], most
        for one in sorted(events, key=lambda e: -e.at):
            left -= len(one.props)
            if newest and left < 0:
                break
            newest.append(one.at)
        rng.shuffle(events)
        person = folded(events)
        assert list(person.log[kind].at if events else []) == newest[::-1]
        assert state(people.decode(people.encode(person))) == state(person)

    def test_websites_of_which_nothing_is_kept_are_forgotten_and_the_others_keep_their_names(self) -> None:
        def named(person: Profile) -> list[str]:
            return [person.sites[number] for number in person.log["product_view"].sites]

        one, other = (
            folded([Activity(i, "product_view", i, f"w{i}", b"\x80") for i in span])
            for span in (range(700), range(700, 1500))
        )
        assert named(one) == [f"w{i}" for i in range(500, 700)]
        people.merge(one, other, NOW)
        for person in (one, other):
            assert named(person) == [f"w{i}" for i in range(1300, 1500)]
            assert len(person.sites) <= bounds.LIMIT + 1

    def test_an_order_is_kept_whatever_its_size(self) -> None:
        orders = [Activity(i, "order_placed", i, "main", pack({"x": "y" * bounds.MOST_BYTES})) for i in range(5)]
        assert len(folded(orders).log["order_placed"]) == 5

    def test_what_waits_for_its_time_is_bounded_by_bytes_but_for_orders(self) -> None:
        person, large = people.empty("visitor"), pack({"x": "y" * (bounds.MOST_BYTES // 3)})
        outcomes = [people.fold(person, Activity(i, "cart_update", NOW + DAY, "main", large), NOW) for i in range(4)]
        assert outcomes == ["pending", "pending", "too_many_ahead", "too_many_ahead"]
        order = Activity(9, "order_placed", NOW + DAY, "main", pack({"x": "y" * bounds.MOST_BYTES}))
        assert people.fold(person, order, NOW) == "pending"
        assert people.fold(person, Activity(10, "page_view", NOW + DAY, "main", pack({})), NOW) == "pending"

    def test_types_of_a_shops_own_are_bounded_and_those_known_go_on(self) -> None:
        person = people.empty("visitor")
        for i in range(bounds.MOST_CUSTOM):
            ahead = NOW + DAY if i % 2 else NOW
            assert people.fold(person, Activity(i, f"custom.{i}", ahead, "main", pack({})), NOW) in (
                "applied",
                "pending",
            )
        assert people.fold(person, Activity(-1, "custom.more", NOW, "main", pack({})), NOW) == "too_many_types"
        for i, kind in enumerate(("custom.0", "custom.1", "product_view"), 1000):
            assert people.fold(person, Activity(i, kind, NOW, "main", pack({})), NOW) == "applied"

    @pytest.mark.parametrize(
        ("kind", "field", "most"), [("identify", "attributes", 500), ("consent_changed", "purposes", 50)]
    )
    def test_names_are_bounded_and_those_known_go_on(self, kind: str, field: str, most: int) -> None:
        ids = iter(range(10**6))

        def told(person: Profile, *names: str, at: int = NOW, value: bool = True) -> str:
            return people.fold(
                person, Activity(next(ids), kind, at, "main", pack({field: dict.fromkeys(names, value)})), NOW
            )

        person, other = people.empty("visitor"), people.empty("customer")
        assert told(person, *(f"a{i}" for i in range(most - 2))) == "applied"
        assert told(person, "a0", "x", "y", "z") == "too_many_names"
        assert told(person, "x", at=NOW + DAY) == "pending"
        assert told(person, "y", "z") == "too_many_names"
        assert told(person, "y", "x") == "applied"
        assert told(person, "z") == told(person, "z", at=NOW + DAY) == "too_many_names"
        assert told(person, "a0", "y", value=False) == "applied"
        people.advance(person, NOW + DAY)
        assert len(person.registers) == most
        assert people.register(person, f"{field}.a0") is False
        assert people.register(person, f"{field}.z") is None
        # A merge is no way around it, nor is what waits at a merge; the one who stays keeps what they are.
        assert (told(other, "a0", "mine", at=NOW - 1), told(other, "late", at=NOW + DAY)) == ("applied", "pending")
        people.merge(other, person, NOW)
        people.advance(other, NOW + DAY)
        assert len(other.registers) == most
        assert people.register(other, f"{field}.a0") is False
        assert people.register(other, f"{field}.mine") is True
        group = Activity(-1, "group_assigned", NOW, "main", pack({"group": "vip"}))
        assert (people.fold(other, group, NOW), other.group) == ("applied", "vip")

    @given(log, st.integers(0, 40))
    def test_a_merge_is_the_fold_of_both_histories(self, events: list[Activity], cut: int) -> None:
        one, two = folded(events[:cut]), folded(events[cut:])
        people.merge(one, two, NOW)
        assert state(one) == state(folded(events))

    @given(log)
    def test_bytes_read_back(self, events: list[Activity]) -> None:
        person = folded(events)
        assert state(people.decode(people.encode(person))) == state(person)

    @given(log)
    def test_the_future_waits_and_then_counts(self, events: list[Activity]) -> None:
        person, later = folded(events), NOW + 10 * DAY
        people.advance(person, later)
        assert state(person) == state(folded(events, later))

    def test_beyond_the_bound_events_are_counted_and_older_ones_refused(self) -> None:
        person = people.empty("visitor")
        for i in range(bounds.LIMIT + 50):
            assert people.fold(person, activity(i, "product_view", i), NOW) == "applied"
        assert len(person.log["product_view"]) == bounds.LIMIT
        assert person.dropped["product_view"] == (50, 49)
        assert people.fold(person, activity(9999, "product_view", 3), NOW) == "too_old"
        views = {"events": {"type": "product_view", "count": {"op": "eq", "value": bounds.LIMIT + 50}}}
        rules = RuleSet.compile([Definition(1, "s", 1, "both", (), views, (), (0,))])
        assert rules.timeline(person, NOW, horizon_ms=0).bits == 1

    def test_a_merge_with_an_older_past_lets_no_dropped_event_count_twice(self) -> None:
        views = [activity(i, "product_view", 1000 + i) for i in range(bounds.LIMIT + 100)]
        person = folded(views)
        people.merge(person, folded([activity(900 + i, "product_view", i) for i in range(10)]), NOW)
        assert {people.fold(person, view, NOW) for view in views[:100]} == {"too_old"}
        assert bounds.LIMIT + person.dropped["product_view"][0] == len(views) + 10

    def test_an_event_that_came_with_two_times_counts_once_after_a_merge(self) -> None:
        for ahead in (0, 9):
            one = folded([activity(1, "product_view", NOW + ahead)])
            people.merge(one, folded([activity(1, "product_view", NOW + 9 - ahead)]), NOW + 10)
            assert len(one.log["product_view"]) == 1

    def test_only_so_many_events_wait_for_their_time(self) -> None:
        person = people.empty("visitor")
        outcomes = [people.fold(person, activity(i, "product_view", NOW + 1 + i), NOW) for i in range(bounds.LIMIT + 3)]
        assert outcomes == ["pending"] * bounds.LIMIT + ["too_many_ahead"] * 3
        assert people.fold(person, activity(bounds.LIMIT + 1, "product_view", NOW), NOW) == "applied"


ODD: list[Any] = [
    None, True, -1, 0.5, 10**20, "", "x", "placed", "P3D", "sum", "count", "-inf", "2026-01-01", "all", [], ["x"], [[]],
    {}, {"field": "sku", "value": ["S1"]}, {"op": "gt", "value": "1"}, [{"field": "at", "op": "in", "value": [1, [2]]}],
]  # fmt: skip
WHERE = {"field": "sku", "op": "eq", "value": "S1"}
NOT_LOST = {"field": "status", "op": "ne", "value": "lost"}
SHAPES: list[dict[str, Any]] = [
    {"attribute": "tier", "op": "gte", "value": 1},
    {"events": {"type": "product_view", "count": {"op": "gte", "value": 1}, "window": {"last": "P1D"}, "where": WHERE}},
    {"last_event": {"type": "product_view", "where": WHERE, "has": WHERE}},
    {"orders": {"measure": "sum", "op": "gt", "value": 1, "field": "grand_total", "where": NOT_LOST, "window": {"last": "P1D"}}},
    {"days_since": {"of": "last_order", "mode": "calendar", "op": "gt", "value": 1, "if_never": True, "where": NOT_LOST}},
    {"cart": {"field": "subtotal", "op": "gt", "value": 1}},
    {"list": {"name": "cart", "found": True, "where": WHERE}},
    {"group": {"op": "in", "values": ["g1"]}},
    {"segment": {"op": "in", "keys": ["other"]}},
]  # fmt: skip


# An order dated ahead, announced again before it is due: what was to come does not come.
LONG_AGO = NOW - 50 * DAY
AHEAD = [
    activity(i, "order_placed" if at != LONG_AGO or i == 6 else "product_view", at)
    for i, at in enumerate([*[LONG_AGO] * 3, NOW + 1, *[LONG_AGO] * 6])
] + [activity(10, "product_view", LONG_AGO + 1)]
AGAIN = [activity(i, "order_placed" if i == 7 else "product_view", LONG_AGO) for i in range(8)]


class TestRules:
    @pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: next(iter(shape)))
    def test_a_rule_is_refused_with_a_pointer_or_can_be_decided_for_anybody(self, shape: dict[str, Any]) -> None:
        person = folded([activity(i, kind, NOW - 9 + i % 9) for i, kind in enumerate(KINDS * 2)])
        other = Definition(2, "other", 1, "both", (), SHAPES[0], (), (1,))
        decided = 0
        for number in range(len(list(_places(shape)))):
            for odd in ODD:  # put something odd in one of the places of the rule
                condition = copy.deepcopy(shape)
                holder, name = list(_places(condition))[number]
                holder[name] = copy.deepcopy(odd)
                definition = Definition(1, "s", 1, "both", (), condition, (), (0,))
                if not (check(definition) or among([definition, other], "s")):
                    rules = RuleSet.compile([definition, other])
                    seen = rules.timeline(person, NOW, horizon_ms=3 * DAY)
                    assert rules.explain("s", person, NOW)["result"] is bool(seen.bits & 1)
                    decided += 1
        assert decided

    @example(AHEAD, AGAIN, 1)
    @given(log, log, st.integers(0, 9))
    def test_what_was_known_and_what_is_new_give_what_all_of_it_gives(
        self, before: list[Activity], after: list[Activity], later: int
    ) -> None:
        definitions = [Definition(i, f"s{i}", 1, "both", (), shape, (), (i,)) for i, shape in enumerate(SHAPES[:-1])]
        rules, person, now = RuleSet.compile(definitions), folded(before), NOW
        known = rules.timeline(person, now, horizon_ms=3 * DAY)
        renamed = [Activity(a.id_hash + 1000, a.type, a.at, a.website, a.props) for a in after]
        now += later * DAY
        due = people.advance(person, now)
        fresh = {a.type for a in renamed if people.fold(person, a, now) == "applied"}
        seen = rules.timeline(person, now, horizon_ms=3 * DAY, known=known, touched=due | fresh)
        whole = RuleSet.compile(definitions).timeline(person, now, horizon_ms=3 * DAY)
        assert (seen.bits, seen.flips, seen.next_at) == (whole.bits, whole.flips, whole.next_at)


class TestComing:
    def test_two_cuts_of_one_rolling_measure_come_as_they_would_for_somebody_looked_at_anew(self) -> None:
        """The first change is nobody's entry or exit; the second one moves when the newest order is cancelled."""
        hour, start = HOUR, 1_795_000_000_000

        def spent(value: int) -> dict[str, Any]:
            window = {"last": "PT12H"}
            return {"orders": {"measure": "sum", "op": "gte", "value": value, "window": window}}

        def ordered(number: int, at: int, total: int) -> Activity:
            return Activity(number, "order_placed", at, "main", pack({"order_id": f"o{number}", "grand_total": total}))

        vip = {"all": [spent(100), {"group": {"op": "in", "values": ["vip"]}}]}
        conditions = enumerate((vip, spent(10)))
        rules = RuleSet.compile([Definition(i, f"s{i}", 1, "both", (), c, (), (i,)) for i, c in conditions])
        person, now = people.empty("customer"), start + 7 * hour
        for number, (at, total) in enumerate(((0, 100), (1, 50), (6, 20))):
            people.fold(person, ordered(number, start + at * hour, total), now)
        known = rules.timeline(person, now, horizon_ms=DAY_MS)
        assert known.flips == [(start + 18 * hour, 0)]
        cancelled = pack({"order_id": "o2", "status": "cancelled"})
        people.fold(person, Activity(9, "order_status_changed", now, "main", cancelled), now)
        seen = rules.timeline(person, now, horizon_ms=DAY_MS, known=known, touched={"order_status_changed"})
        assert seen.flips == rules.timeline(person, now, horizon_ms=DAY_MS).flips == [(start + 13 * hour, 0)]

    def test_what_an_order_dated_ahead_would_have_brought_does_not_come_once_it_is_cancelled(self) -> None:
        hour, start = HOUR, 1_795_000_000_000

        def ordered(op: str, value: int, window: str) -> dict[str, Any]:
            return {"orders": {"measure": "count", "op": op, "value": value, "window": {"last": window}}}

        reorder = {"all": [ordered("gte", 1, "PT12H"), ordered("eq", 0, "PT1H")]}
        rules = RuleSet.compile([Definition(0, "reorder", 1, "both", (), reorder, (), (0,))])
        person, due = people.empty("customer"), start + 60_000
        placed = Activity(1, "order_placed", due, "main", pack({"order_id": "o1", "grand_total": 20}))
        assert people.fold(person, placed, start) == "pending"
        waiting = rules.timeline(person, start, horizon_ms=DAY_MS)
        assert (waiting.flips, waiting.next_at) == ([], due)
        touched = people.advance(person, due)
        known = rules.timeline(person, due, horizon_ms=DAY_MS, known=waiting, touched=touched)
        assert known.flips == [(due + hour, 1), (due + 12 * hour, 0)]
        cancelled = pack({"order_id": "o1", "status": "cancelled"})
        people.fold(person, Activity(2, "order_status_changed", due, "main", cancelled), due)
        touched = {"order_status_changed"}
        assert rules.timeline(person, due, horizon_ms=DAY_MS, known=known, touched=touched).flips == []


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield value, name
        yield from _places(inner)


class TestTimeline:
    @given(
        st.lists(st.integers(0, 48 * HOUR), max_size=8),
        st.integers(0, 4),
        st.sampled_from(["gte", "lt", "eq", "ne", "gt", "lte"]),
    )
    def test_every_coming_flip_is_foreseen_at_its_instant(self, hours: list[int], limit: int, op: str) -> None:
        window = {"last": "P1D"}
        views = {"events": {"type": "product_view", "count": {"op": op, "value": limit}, "window": window}}
        orders = {"orders": {"measure": "count", "op": op, "value": limit, "window": window}}
        definitions = [
            Definition(i, k, 1, "both", (), c, (), (i,)) for i, (k, c) in enumerate({"v": views, "o": orders}.items())
        ]
        rules = RuleSet.compile(definitions)
        now = 48 * HOUR
        events = [activity(i, ["product_view", "order_placed"][i % 2], at) for i, at in enumerate(hours)]
        person = folded(events, now)
        seen = rules.timeline(person, now, horizon_ms=100 * HOUR, most=64)
        bits = {at: b for at, b in seen.flips}
        current = seen.bits
        for at in sorted({e.at + 24 * HOUR + d for e in events for d in (-1, 0, 1)}):
            if at > now:
                current = next((bits[t] for t in sorted(bits, reverse=True) if t <= at), seen.bits)
                assert rules.decide(Facts(person), at)[0] == current
