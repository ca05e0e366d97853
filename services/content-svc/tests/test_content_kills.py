"""The gateways' list of kills is kept as they say, one over the other, and what is none is not."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.servers
NONE = {"list": "", "number": 0, "last": ""}
KILL = {"by": "ann", "at_ms": 7, "owed": ""}


def listing(number: int, *names: str, **more: Any) -> dict[str, Any]:
    return {"list": "l", "number": number, "last": f"x{number}", "names": dict.fromkeys(names, KILL), **more}


def mark(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in NONE}


async def test_a_list_is_kept_over_the_one_that_its_sender_saw(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/kills")).json() == {**NONE, "names": {}}
    first, second, third = listing(1, "slot:a"), listing(2, "slot:a", "block:b.c", "rule:d"), listing(3)
    assert (await client.put("/v1/kills", json={**first, "over": NONE})).json() == first
    assert (await client.put("/v1/kills", json={**second, "over": NONE})).json() == first, "one came in between"
    assert (await client.put("/v1/kills", json={**second, "over": mark(first)})).json() == second
    for seen in (
        mark(first),
        {**mark(second), "number": 1},
        {**mark(second), "last": "x1"},
        {**mark(second), "list": "m"},
    ):
        assert (await client.put("/v1/kills", json={**third, "over": seen})).json() == second
    assert (await client.get("/v1/kills")).json() == second


async def test_as_many_are_kept_as_all_gateways_together_may_have(client: httpx.AsyncClient) -> None:
    many = listing(1, *(f"block:b{n}" for n in range(5000)))
    answer = await client.put("/v1/kills", json={**many, "over": NONE})
    assert (answer.status_code, answer.json()) == (200, many)


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"number": -1}, "/number"), ({"number": 10**15}, "/number"), ({"number": "1"}, "/number"), ({"list": "a b"}, "/list"),
        ({"last": "x" * 65}, "/last"), ({"over": {**NONE, "list": None}}, "/over/list"), ({"over": None}, "/over"),
        ({"names": {"person:a": KILL}}, "/names/person:a/[key]"), ({"names": {"slot:A": KILL}}, "/names/slot:A/[key]"),
        ({"names": {"slot:a": {**KILL, "by": "a\u0001"}}}, "/names/slot:a/by"),
        ({"names": {"slot:a": {**KILL, "owed": "An admin"}}}, "/names/slot:a/owed"),
        ({"names": {"slot:a": {"by": "a", "owed": ""}}}, "/names/slot:a/at_ms"),
        ({"names": {f"slot:a{n}": KILL for n in range(5001)}}, "/names"), ({"x": 1}, "/x"),
    ],
)  # fmt: skip
async def test_what_is_none_is_pointed_at_and_not_kept(
    client: httpx.AsyncClient, more: dict[str, Any], pointer: str
) -> None:
    answer = await client.put("/v1/kills", json={**listing(1), "over": NONE, **more})
    assert (answer.status_code, [e["pointer"] for e in answer.json()["errors"]]) == (422, [pointer])
    assert (await client.get("/v1/kills")).json() == {**NONE, "names": {}}
