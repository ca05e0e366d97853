"""The audience in the URL: what it says is what the edge would key by, of one website, one plan and a few minutes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from gateway.domain import aud, dimensions
from gateway.domain.answer import finish
from gateway.domain.aud import LIFE_MIN, PRICE_MIN, STRANGERS, last_minute, read, seen_by, write
from gateway.domain.dimensions import OWN, Seen
from gateway.domain.sharing import Proof, shareable
from gateway.domain.signing import Ring
from hypothesis import given
from test_dimensions import empties, matters, people, planned, shapes

RING, OTHER = Ring("1:" + "s" * 32), Ring("1:" + "t" * 32)
NOW_MS, MINUTE = 1_800_000_030_000, 30_000_001


def written(plan: Any, seen: Seen, ring: Ring = RING) -> str | None:
    return write(ring, plan, seen, minute=MINUTE)


@given(empties, shapes, people, people)
def test_who_asks_with_it_is_answered_as_who_it_was_made_for(empty: int, shape: Any, who: Seen, other: Seen) -> None:
    plan = planned(empty, *shape)
    text, others = written(plan, who), written(plan, other)
    if plan.mask.startswith(OWN):
        assert text is None
        return
    assert text is not None
    said = read(RING, text, "main", now_ms=NOW_MS)
    assert said is not None
    seen = seen_by(plan, said, empty)
    assert seen is not None
    (*found, group), (*sought, whose) = matters(plan, seen), matters(plan, who)
    assert found == sought
    assert group == whose or not {group, whose} & shape[2], "a group that nothing is for is as any other"
    assert shareable(plan, seen, Proof(plan.mask, dimensions.audience(plan.dimensions, who), "k"))
    assert (text == others) == (
        dimensions.audience(plan.dimensions, who) == dimensions.audience(plan.dimensions, other)
    ), "one URL for all who are answered alike, and for nobody else"
    assert said is not STRANGERS, "it is of this plan: by another one they may differ"


class TestBounds:
    plan = planned(0, frozenset({1, 2}), [], frozenset({"Wholesale"}))
    member = Seen(0b110, "Wholesale")

    @pytest.fixture
    def text(self) -> str:
        text = written(self.plan, self.member)
        assert text is not None
        return text

    def test_it_is_of_one_website_and_its_minute(self, text: str) -> None:
        assert read(RING, text, "main", now_ms=MINUTE * 60_000 - 1) is not None
        assert read(RING, text, "main", now_ms=MINUTE * 60_000) is None
        assert read(RING, text, "other", now_ms=NOW_MS) is None
        assert read(RING, "base.main", "main", now_ms=1 << 60) is STRANGERS
        said = read(RING, text, "main", now_ms=NOW_MS)
        assert said is not None
        assert [said.left_s(MINUTE * 60_000 - left_ms) for left_ms in (60_000, 7_999, 999)] == [60, 7, 0]
        answer = finish(self.plan, {"slots": {}, "messages": []}, [], now_ms=NOW_MS, most_s=60)
        kept = [
            dict(answer.by_url(left).headers)[b"cache-control"]
            for left in (said.left_s(NOW_MS), 7, STRANGERS.left_s(0))
        ]
        assert kept == [b"public, max-age=0, s-maxage=%d" % most for most in (30, 7, 60)], "no copy outlives it"
        assert read(RING, "base.main", "other", now_ms=NOW_MS) is None

    def test_nothing_of_it_can_be_changed(self, text: str) -> None:
        assert read(OTHER, text, "main", now_ms=NOW_MS) is None
        for at in range(len(text)):
            for letter in ("A", "0", "."):
                changed = text[:at] + letter + text[at + 1 :]
                assert changed == text or read(RING, changed, "main", now_ms=NOW_MS) is None
        for odd in ("", "1", "base.", text + "x", text[:-1], text + "\n", " " + text, "é"):
            assert read(RING, odd, "main", now_ms=NOW_MS) is None

    def test_of_another_plan_it_says_nothing(self, text: str) -> None:
        said = read(RING, text, "main", now_ms=NOW_MS)
        assert said is not None
        assert seen_by(self.plan, said, 0) == Seen(0b110, "Wholesale")
        for other in (
            planned(0, frozenset({1, 2, 3}), [], frozenset({"Wholesale"})), replace(self.plan, since=7),
            replace(self.plan, website="other"), replace(self.plan, mask=OWN),
        ):  # fmt: skip
            assert seen_by(other, said, 0) is None

    def test_what_no_url_can_say_is_not_said(self) -> None:
        many = planned(0, frozenset(range(25)), [], frozenset())
        assert written(many, Seen(1)) is None
        place = planned(0, frozenset(), [("city", 1)], frozenset())
        assert written(place, Seen(0, facts={"city": "x" * 200})) is not None
        assert written(place, Seen(0, facts={"city": "ü" * aud.MOST})) is None


def test_many_people_have_the_same_minute_and_nobody_one_that_he_changes_before() -> None:
    for steering, life in ((True, PRICE_MIN), (False, LIFE_MIN)):
        found = {last_minute(at, steering=steering, until_ms=None) for at in range(0, life * 60_000, 1000)}
        assert found == {life}
        assert last_minute(life * 60_000, steering=steering, until_ms=None) == 2 * life
        assert last_minute(0, steering=steering, until_ms=life * 60_000) == life
        assert last_minute(0, steering=steering, until_ms=life * 60_000 - 1) is None
