"""What a block, a slot or an ask cannot be is refused where it is wrong; what was odd and accepted shows, or nothing does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.servers
EXAMPLES = 40
T = 1_800_000_000_000


def element(kind: str = "heading", **props: Any) -> dict[str, Any]:
    return {"id": "a", "type": kind, "props": props or {"text": "x"}}


def content(*elements: Any) -> dict[str, Any]:
    return {"schemaVersion": 1, "blocks": list(elements) or [element()]}


SLOT = {"key": "hero", "title": "Hero", "default": {"*": content()}}
BLOCK = {"key": "b", "title": "B", "status": "live", "slots": ["hero"], "content": {"*": content()}}
ASK = {"website": "main", "slots": ["hero"], "at_ms": T}


def changed(body: Any, pointer: str, value: Any) -> Any:
    """A copy of the body with the value at the pointer."""
    copy = json.loads(json.dumps(body))
    *way, last = pointer.strip("/").split("/")
    at = copy
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    at[int(last) if isinstance(at, list) else last] = value
    return copy


async def post(client: httpx.AsyncClient, path: str, body: Any) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await client.post(path, content=raw, headers={"content-type": "application/json"})
    assert answer.status_code < 500, (path, body, answer.text)
    return answer.status_code, answer.json()


FIRST = "/content/*/blocks/0"
BLOCKS: list[tuple[str, Any, str | None]] = [
    (f"{FIRST}/props/text", "x" * 2001, None), (f"{FIRST}/props/text", 5, None), (f"{FIRST}/props/html", "x", None),
    (f"{FIRST}/props", {}, f"{FIRST}/props/text"), (f"{FIRST}/type", "html", None), (f"{FIRST}/type", ["text"], None),
    (f"{FIRST}/id", "A b", None), (FIRST, "heading", None), (FIRST, {"id": "a"}, f"{FIRST}/type"),
    (FIRST, element("cta", label="x"), f"{FIRST}/props/href"), (FIRST, element("text", texx="x"), f"{FIRST}/props/texx"),
    ("/content", {}, None), ("/content", [], None), ("/content/DE", content(), None), ("/content/de/blocks", [], None),
    ("/content/de", {"blocks": [element(), element("image", src="/x", alt=5)]}, "/content/de/blocks/1/props/alt"),
    ("/content/*/blocks", [element()] * 51, None), ("/content/*/schemaVersion", 2, None),
    ("/starts_at", 0, None), ("/starts_at", "2026-11-24", None), ("/starts_at", 2**70, None), ("/priority", -1, None),
    ("/priority", "1", None), ("/priority", True, None), ("/zone", "Mars/North", None), ("/status", "on", None),
    ("/audience/any_of", ["vip", "V P"], "/audience/any_of/1"), ("/audience/all_of", ["home.hero"], "/audience/all_of/0"),
    ("/audience/groups", [""], "/audience/groups/0"), ("/audience/groups", ["g"] * 201, None),
    ("/audience/some_of", [], None), ("/websites", ["a", 5], "/websites/1"), ("/slots", ["x"] * 201, None),
    ("/title", "", None), ("/title", "t" * 121, None), ("/key", "A", None), ("/odd", 1, None),
]  # fmt: skip
SLOTS: list[tuple[str, Any, str | None]] = [
    ("/default", {"de": content()}, None), ("/capacity", 0, None), ("/capacity", 51, None), ("/capacity", "1", None),
    ("/display", "some", None), ("/kind", "attic", None), ("/default/*/blocks/0/props/text", None, None),
]  # fmt: skip
ASKS: list[tuple[str, Any, str | None]] = [
    ("/slots", [], None), ("/slots", ["x"] * 21, None), ("/slots", [5], "/slots/0"), ("/at_ms", "now", None),
    ("/at_ms", -1, None), ("/at_ms", 1.5, None), ("/at_ms", 2**70, None), ("/locale", "l" * 201, None), ("/explain", "yes", None),
]  # fmt: skip


class TestRefused:
    @pytest.mark.parametrize(
        ("path", "sound", "faults"),
        [("blocks", BLOCK, BLOCKS), ("slots", SLOT, SLOTS), ("select", ASK, ASKS)],
        ids=["blocks", "slots", "select"],
    )
    async def test_what_cannot_be_is_refused_where_it_is(
        self, client: httpx.AsyncClient, path: str, sound: Any, faults: Any
    ) -> None:
        for pointer, value, at in faults:
            status, answer = await post(client, f"/v1/{path}", changed(sound, pointer, value))
            found = {e["pointer"] for e in answer["errors"]}
            wanted = at or pointer
            assert (status, wanted in found) == (422, True), (pointer, value, answer)
            assert all(other.startswith(wanted.rpartition("/")[0]) for other in found), (pointer, value, found)
        assert (await post(client, f"/v1/{path}", sound))[0] in (200, 201)

    async def test_a_block_ends_after_it_starts(self, client: httpx.AsyncClient) -> None:
        status, answer = await post(client, "/v1/blocks", {**BLOCK, "starts_at": T, "ends_at": T})
        assert (status, answer["errors"][0]["pointer"]) == (422, "/ends_at")

    async def test_what_cannot_be_stored_is_refused(self, client: httpx.AsyncClient) -> None:
        raw = json.dumps(changed(BLOCK, f"{FIRST}/props/text", "?"))
        for odd, status in (("NaN", 400), ("1e999", 400), ('"\\ud800"', 400), ("[" * 5000, 400), ('"\\u0000"', 422)):
            assert (await post(client, "/v1/blocks", raw.replace('"?"', odd).encode()))[0] == status


NASTY = (
    None, True, 0, -1, 2**31, 2**63, 0.5, float("nan"), "", " ", "*", "de", "de-AT", "\x00", "\ud800", "x" * 2500, [], [[]], {},
    {"a": {"b": []}}, content(), element(), ["vip"], {"*": content()},
)  # fmt: skip
odd = st.sampled_from(NASTY) | st.text(max_size=6) | st.integers()
keys = st.lists(st.sampled_from(["a", "b-1", "main"]), max_size=2)
elements = st.sampled_from([
    element(), element("text", text="x"), element("image", src="/i.png", alt="i"), element("coupon", code="TEN"),
    element("banner", title="t", href="/x"), element("cta", label="l", href="/x"),
])  # fmt: skip
contents = st.dictionaries(
    st.sampled_from(["*", "de", "de-AT", "fr"]),
    st.lists(elements, min_size=1, max_size=3).map(lambda e: content(*e)),
    min_size=1,
)
blocks = st.fixed_dictionaries(
    {"content": contents, "slots": st.sampled_from([["hero"], ["hero", "odd"], ["odd"], []]), "priority": st.integers(0, 9)},
    optional={
        "audience": st.fixed_dictionaries({}, optional={n: keys for n in ("any_of", "all_of", "none_of", "groups")}),
        "websites": keys, "starts_at": st.integers(T - 3, T), "ends_at": st.integers(T + 1, T + 3), "zone": st.just("UTC"),
    },
)  # fmt: skip
slots = st.fixed_dictionaries(
    {"default": contents.map(lambda found: {"*": content(), **found})},
    optional={"capacity": st.integers(1, 9), "display": st.sampled_from(["all", "first"]), "websites": keys},
)
asks = st.fixed_dictionaries(
    {"website": st.just("main"), "slots": st.just(["hero", "odd", "none"]), "at_ms": st.integers(T - 4, T + 4)},
    optional={
        "segments": keys, "group": st.sampled_from(["a", "guest"]), "explain": st.booleans(),
        "locale": st.sampled_from(["*", "de", "de-AT", "fr-CA", "zz"]),
    },
)  # fmt: skip


def paths(body: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a body."""
    steps = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for step, item in steps:
        yield (*at, step)
        yield from paths(item, (*at, step))


@st.composite
def odd_here_and_there(draw: st.DrawFn, sound: st.SearchStrategy[Any]) -> Any:
    """A sound body in which up to one place holds something odd; often none."""
    body = json.loads(json.dumps(draw(sound)))
    if draw(st.booleans()):
        *way, last = draw(st.sampled_from(list(paths(body))))
        at = body
        for step in way:
            at = at[step]
        at[last] = draw(odd)
    return body


@pytest.fixture
def reached() -> Iterator[Counter[str]]:
    """How often the test came where it wants to be: all refused at the door would prove nothing."""
    counts: Counter[str] = Counter()
    yield counts
    assert counts["saved"] > EXAMPLES / 2
    assert counts["shown"] > EXAMPLES / 8


class TestFuzz:
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip
    @given(
        bodies=st.lists(odd_here_and_there(blocks), min_size=2, max_size=3),
        slot=odd_here_and_there(slots),
        visits=st.lists(odd_here_and_there(asks), min_size=6, max_size=6),
    )
    async def test_nothing_that_is_saved_or_asked_fails_or_disturbs_others(
        self, client: httpx.AsyncClient, reached: Counter[str], bodies: list[Any], slot: Any, visits: list[Any]
    ) -> None:
        for path, body in (
            ("slots", SLOT),
            ("slots", {**SLOT, "key": "still"}),
            ("blocks", {**BLOCK, "slots": ["still"]}),
        ):
            await post(client, f"/v1/{path}", body)
        made = [("slots", "odd", {"title": "t", **slot}), *(("blocks", f"b{n}", {"title": "t", "status": "live", **b})
                                                            for n, b in enumerate(bodies))]  # fmt: skip
        saved = []
        for path, key, body in made:
            status, answer = await post(client, f"/v1/{path}", {**body, "key": key})
            assert status in (201, 400, 422), (status, answer)
            assert "content-invalid" not in answer.get("type", ""), (body, answer)  # a probe met a fault of ours
            saved += [(path, key, str(answer["version"]))] if status == 201 else []
        for visit in visits:
            status, found = await post(client, "/v1/select", visit)
            assert status in (200, 400, 422)
            for name, shown in found.get("slots", {}).items():
                assert shown["blocks"] or (name == "odd" and visit["website"] not in slot["websites"]), name
                assert all(b["content"]["blocks"] for b in shown["blocks"]), name
                reached["shown"] += not shown["fallback"]
            assert all(e["refused"] != "broken" for es in found.get("explain", {}).values() for e in es)
        still = await post(client, "/v1/select", {**ASK, "slots": ["still"]})
        assert still[1]["slots"]["still"] == {"fallback": False, "blocks": [{"key": "b", "content": content()}]}
        reached["saved"] += len(saved)
        for path, key, version in reversed(saved):
            assert (await client.delete(f"/v1/{path}/{key}", headers={"if-match": version})).status_code == 204
