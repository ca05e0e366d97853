"""What a request is matched against: one segment that cannot be read, or asked, is nobody's and stops no other."""

from __future__ import annotations

from typing import Any

import pytest
from conditions.context import Context
from gateway.domain.membership import Late, late_bits, standing
from gateway.domain.targeting import LOGIN_SAID, NOTHING_SAID, definitions_of


def segment(number: int, region: str, **more: Any) -> dict[str, Any]:
    residual = {"context": "region", "op": "eq", "value": region}
    return {
        "id": number,
        "key": f"s{number}",
        "websites": [],
        "atom": None,
        "epoch": 0,
        "since": 0,
        "residual": residual,
        **more,
    }


def release(*segments: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "empty": {"visitor": "", "customer": ""}, "segments": list(segments), "changes": []}


class TestLate:
    def test_a_segment_of_a_newer_version_is_left_out_by_name(self) -> None:
        found = definitions_of(release(segment(1, "BY"), segment(2, "BY", residual={"moon": "full"}), segment(3, "HH")))
        assert (found.unreadable, sorted(found.segments)) == (["s2"], ["s1", "s3"])
        assert late_bits(found, found.segments.values(), 0, {"region": "BY"}, 0) == (0b1, 0)

    def test_one_that_raises_holds_for_nobody_and_the_others_as_they_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bind = Context.bind

        def broken(self: Any, params: Any) -> Any:
            if params[2] == "boom":
                return lambda facts, now: 1 / 0
            return bind(self, params)

        monkeypatch.setattr(Context, "bind", broken)
        found = definitions_of(release(segment(1, "BY"), segment(2, "boom"), segment(3, "HH")))
        assert late_bits(found, found.segments.values(), 0, {"region": "HH"}, 0) == (0b100, 0b10)


class TestStanding:
    @pytest.mark.parametrize(
        ("epoch", "inside", "unknown"),
        [
            (2, ["s1", "s2", "s3", "s4"], ["gone"]),
            (1, ["s1", "s2", "s4"], ["gone", "s3"]),  # a document of before the bits of s3 were its
            (LOGIN_SAID, ["s2", "s4"], ["gone", "s1", "s3"]),
            (NOTHING_SAID, ["s2"], ["gone", "s1", "s3", "s4"]),  # a visitor's, who may have logged in
        ],
    )
    def test_what_a_document_does_not_say_nobody_says(self, epoch: int, inside: list[str], unknown: list[str]) -> None:
        both = {"all": [{"atom": 0}, {"context": "region", "op": "eq", "value": "BY"}]}
        segments = [
            {**segment(1, "BY"), "atom": 0, "residual": None}, segment(2, "BY"), {**segment(3, "BY", residual=both), "epoch": 2},
            segment(4, "", residual={"context": "logged_in", "op": "eq", "value": True}),
        ]  # fmt: skip
        found = definitions_of(release(*segments))
        refs = list(found.segments.values())
        late = late_bits(found, refs, 1, {"region": "BY", "logged_in": epoch != NOTHING_SAID}, 0)
        said = standing(refs, ["gone"], 1, late, epoch=epoch)
        assert said == (inside, unknown)

    def test_what_raises_is_neither_in_nor_out(self) -> None:
        refs = list(definitions_of(release(segment(1, "BY"), segment(2, "HH"))).segments.values())
        assert standing(refs, (), 0, Late(0b01, 0b10), epoch=0) == (["s1"], ["s2"])

    def test_how_many_segments_there_ever_were_costs_nothing(self) -> None:
        found = definitions_of(release(segment(2**31 - 2, "BY"), segment(2**31 - 1, "HH")))
        refs = list(found.segments.values())
        said = standing(refs, (), 0, late_bits(found, refs, 0, {"region": "HH"}, 0), epoch=0)
        assert said == ([f"s{2**31 - 1}"], [])


def test_a_segment_of_other_websites_says_nothing_here() -> None:
    vip = {"id": 1, "key": "vip", "websites": ["de"], "atom": 1, "epoch": 0, "since": 0, "residual": None}
    definitions = definitions_of(release(vip))
    named = ["vip", "nowhere"]
    assert definitions.undefined(named, "de") == ("nowhere",)
    assert definitions.undefined(named, "at") == ("nowhere", "vip"), "nobody is known to be out of it either"
