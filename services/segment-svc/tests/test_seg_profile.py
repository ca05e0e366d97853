"""A person is the fold of what they did: order, repetition and batching do not matter, and a merge is the union."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from segment_svc.domain import profile as people
from segment_svc.domain.activity import Activity, pack
from segment_svc.domain.definition import Definition
from segment_svc.domain.facts import Facts
from segment_svc.domain.profile import Profile
from segment_svc.domain.ruleset import RuleSet

NOW, DAY = 1_000_000, 1_000
HOUR = 3_600_000


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
        for i in range(people.LIMIT + 50):
            assert people.fold(person, activity(i, "product_view", i), NOW) == "applied"
        assert len(person.log["product_view"]) == people.LIMIT
        assert person.dropped["product_view"] == (50, 49)
        assert people.fold(person, activity(9999, "product_view", 3), NOW) == "too_old"
        views = {"events": {"type": "product_view", "count": {"op": "eq", "value": people.LIMIT + 50}}}
        rules = RuleSet.compile([Definition(1, "s", 1, "both", (), views, (), (0,))])
        assert rules.timeline(person, NOW, horizon_ms=0).bits == 1

    def test_only_so_many_events_wait_for_their_time(self) -> None:
        person = people.empty("visitor")
        outcomes = [people.fold(person, activity(i, "product_view", NOW + 1 + i), NOW) for i in range(people.LIMIT + 3)]
        assert outcomes == ["pending"] * people.LIMIT + ["too_many_ahead"] * 3
        assert people.fold(person, activity(people.LIMIT + 1, "product_view", NOW), NOW) == "applied"


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
