"""Which segments somebody may name, and is named: no more is asked of segment-svc than that."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from chassis.auth import Actor
from chassis.problems import Problem
from gateway.adapters.upstreams import CONTENT, PROMO
from gateway.flows import naming
from gateway.flows.explain import _named

ALL, DE = Actor("ann", "marketer"), Actor("bob", "marketer", ("de",))
FIELDS = {"plain": [], "late": ["hour"], "said": ["hour", "utm_source"]}


class Segments:
    """Those that may be seen, by name; `asked`: every question."""

    def __init__(self, *, away: bool = False) -> None:
        self.away, self.asked = away, list[tuple[str, int]]()

    async def json(
        self, _: str, method: str, path: str, shape: Any, *, json: dict[str, list[str]], actor: Actor
    ) -> Any:
        self.asked.append((f"{method} {path}", len(json["keys"])))
        if self.away:
            raise httpx.ConnectError("away")
        return {"segments": [{"key": k, "request_fields": FIELDS[k]} for k in json["keys"] if k in FIELDS]}


def deps_of(segments: Segments) -> Any:
    return SimpleNamespace(merchants=segments)


@pytest.mark.parametrize(
    ("owner", "place", "actor", "keys", "refused"),
    [
        (PROMO, "segments", ALL, ["plain", "late", "nowhere"], []),
        (PROMO, "segments", ALL, ["plain", "said"], ["/segments/none_of/1"]),
        (PROMO, "segments", DE, ["nowhere", "said", "late"], ["/segments/none_of/0", "/segments/none_of/1"]),
        (CONTENT, "audience", DE, ["nowhere", "said"], ["/audience/none_of/0"]),
        (CONTENT, "audience", ALL, ["nowhere"], []),
    ],
)
async def test_a_save_asks_for_the_segments_that_it_names_alone(
    owner: str, place: str, actor: Actor, keys: list[str], refused: list[str]
) -> None:
    segments, raw = Segments(), json.dumps({place: {"none_of": keys}}).encode()
    said: list[str] = []
    try:
        await naming.check(deps_of(segments), owner, raw, actor=actor)
    except Problem as problem:
        said = [error["pointer"] for error in problem.errors]
    assert said == refused
    asks = owner == PROMO or actor is DE
    assert segments.asked == ([("POST /v1/segments/named", len(keys))] if asks else [])


async def test_more_than_anything_may_name_is_left_to_who_refuses_it() -> None:
    segments, raw = Segments(), json.dumps({"segments": {"any_of": [f"k{n}" for n in range(601)]}}).encode()
    await naming.check(deps_of(segments), PROMO, raw, actor=ALL)
    assert segments.asked == []


async def test_while_nobody_can_say_nothing_is_saved() -> None:
    with pytest.raises(Problem) as refused:
        await naming.check(deps_of(Segments(away=True)), PROMO, b'{"segments": {"any_of": ["plain"]}}', actor=ALL)
    assert refused.value.status == 503


@pytest.mark.parametrize(("who", "named"), [(ALL, ["at", "plain", "said"]), (DE, ["plain", "said"])])
async def test_explain_names_the_segments_that_somebody_may_see(who: Actor, named: list[str]) -> None:
    assert await _named(deps_of(Segments()), ["at", "plain", "said"], who) == named


async def test_however_many_they_are_each_question_is_bounded() -> None:
    segments = Segments()
    assert await naming.seen(deps_of(segments), {f"k{n}" for n in range(1500)}, DE) == {}
    assert [count for _, count in segments.asked] == [600, 600, 300]
