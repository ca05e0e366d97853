"""The page by which edges are tried, without an edge."""

from __future__ import annotations

import pytest
from gateway.domain import aud, probing
from gateway.domain.probing import FIRST, ORDERS, ORDERS_BY_URL, SECOND, STRANGER, Step
from gateway.domain.signing import Ring

RING, OTHER = Ring("1:" + "s" * 32), Ring("1:" + "t" * 32)
NAME = probing.question(RING, b"12345678")


def test_a_question_is_ours_and_nobody_elses() -> None:
    assert probing.genuine(RING, NAME)
    assert not probing.genuine(OTHER, NAME)
    for changed in (NAME.replace("~1.", "~2."), NAME[:-1] + "_", NAME[1:], NAME + "x", "~", ""):
        assert not probing.genuine(RING, changed)


def test_its_two_visitors_are_known_by_their_cookies_alone() -> None:
    for which in (FIRST, SECOND):
        assert probing.who(RING, NAME, probing.visitor(RING, NAME, which)[0]) == which
    again = probing.question(RING, b"87654321")
    assert probing.who(RING, again, probing.visitor(RING, NAME, FIRST)[0]) == STRANGER
    assert probing.who(RING, NAME, "") == STRANGER


def test_every_kind_of_person_asks_in_both_orders() -> None:
    steps = probing.steps(RING, RING, NAME, b"0123456789abcdef", now_s=1_800_000_000)
    assert [set(order) for order in ORDERS] == [set(steps)] * 2
    assert {name: step.who for name, step in steps.items()} == {
        FIRST: (FIRST,), SECOND: (SECOND,), "stranger": (STRANGER,), "forger": (STRANGER,), "thief": (STRANGER,),
    }  # fmt: skip


def test_a_cache_that_keys_by_the_url_is_asked_with_each_audience_in_both_orders() -> None:
    steps = probing.steps_by_url(RING, OTHER, NAME, now_s=1_800_000_000)
    assert [set(order) for order in ORDERS_BY_URL] == [set(steps)] * 2
    read = {who: aud.read(OTHER, steps[who].aud, "", now_ms=1_800_000_000_000) for who in (FIRST, SECOND, "stranger")}
    plan = probing.plan(NAME)
    assert {who: aud.seen_by(plan, said, 0).atoms for who, said in read.items() if said} == {
        FIRST: 1, SECOND: 2, "stranger": 0,
    }  # fmt: skip
    assert aud.read(OTHER, steps["forger"].aud, "", now_ms=0) is None
    assert len({step.aud for step in steps.values()}) == 5, "the two without one ask with the same URL"


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"probe": FIRST, "country": ""}, False), ({"probe": SECOND, "country": ""}, True), ({"probe": STRANGER}, True),
        ({"probe": FIRST, "country": "ZZ"}, True), ({}, True), ([], True), (None, True), ("first", True),
    ],
)  # fmt: skip
def test_what_is_said_to_somebody_else_is_wrong(said: object, wrong: bool) -> None:
    assert (probing.fault(Step({}, (FIRST,)), said) is not None) is wrong
