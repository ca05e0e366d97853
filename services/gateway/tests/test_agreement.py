"""A gateway that is at another Redis than the services, or at another time, knows that it is."""

from __future__ import annotations

import pytest
from gateway.domain.agreement import Agreement, Word, off_ms
from hypothesis import given
from hypothesis import strategies as st

NOW_S, SKEW_MS, SAID_S, KILLS_S = 100.0, 2000, 1.75, 3.0


def agreement(kills: str, *runs: str | None, off: tuple[int, ...] = (0, 0, 0), ago_s: float = 0.0) -> Agreement:
    """Kills were read a moment ago, from a run; each service reached one, and its clock was off."""
    found = Agreement(skew_ms=SKEW_MS, said_s=SAID_S, any_run="?")
    found.read(kills, NOW_S - 0.1 + KILLS_S)
    for kind, run in enumerate(runs):
        found.heard(kind, Word(run, off[kind], NOW_S - ago_s))
    return found


@pytest.mark.parametrize(
    ("kills", "runs", "fine"),
    [
        ("a", ("a", "a", "a"), True), ("a", ("b", "b", "b"), False), ("a", ("a", "b", "a"), False), ("a", (None,) * 3, True),
        ("a", ("b", None, None), False), ("a", ("?", "?", "?"), True), ("?", ("b", "b", "b"), True), ("a", (), True),
    ],
)  # fmt: skip
def test_kills_count_when_they_are_of_the_redis_that_the_services_reach(
    kills: str, runs: tuple[str | None, ...], fine: bool
) -> None:
    assert (agreement(kills, *runs).trouble(NOW_S) is None) is fine


def test_who_reaches_no_redis_is_in_trouble_when_the_services_do_and_not_when_nobody_does() -> None:
    found = agreement("a", "a", "a", "a")
    later_s = NOW_S + KILLS_S
    assert found.trouble(NOW_S) is None
    for kind in range(3):
        found.heard(kind, Word("a", 0, later_s))
    assert found.trouble(later_s) is not None
    for kind in range(3):
        found.heard(kind, Word(None, 0, later_s))
    assert found.trouble(later_s) is None


def test_what_a_service_said_long_ago_does_not_count() -> None:
    assert agreement("a", "b", "b", "b", ago_s=SAID_S).trouble(NOW_S) is None
    assert agreement("a", "b", "b", "b", ago_s=SAID_S - 0.1).trouble(NOW_S) is not None


@pytest.mark.parametrize(
    ("off", "fine"),
    [
        ((0, 0, 0), True), ((9000, 0, 0), True), ((SKEW_MS,) * 3, True), ((9000, 9000, 0), False), ((-9000, 0, -9000), False),
        ((9000, -9000, 0), True),
    ],
)  # fmt: skip
def test_one_clock_that_is_off_is_that_services_and_two_alike_are_ours(off: tuple[int, ...], fine: bool) -> None:
    assert (agreement("a", "a", "a", "a", off=off).trouble(NOW_S) is None) is fine


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(-9000, 9000))
def test_a_clock_is_off_by_no_more_than_it_must_be(way_ms: int, back_ms: int, skew_ms: int) -> None:
    before, at, after = 10_000, 10_000 + way_ms, 10_000 + way_ms + back_ms
    found = off_ms(before, at + skew_ms, after)
    assert abs(found) <= abs(skew_ms)
    assert abs(skew_ms - found) <= max(way_ms, back_ms)
