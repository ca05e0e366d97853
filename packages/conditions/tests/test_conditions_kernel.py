"""compiled = interpreted = explained, on random trees and facts; texts and JSON read back; faults point at their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from conditions import (
    Invalid,
    LeafType,
    Vocabulary,
    compile_set,
    explain,
    from_text,
    holds,
    next_change_at,
    parse,
    split,
    to_json,
    to_text,
)
from conditions.context import Atom, Context
from conditions.measures import Compared, Cut, Measure, MeasuredLeaf, fall, first_passed, rise
from conditions.operators import NUMERIC, compare
from conditions.read import MOST_FAULTS
from conditions.tree import Fail, Group, Leaf, Node, leaves
from conditions.values import Number, number
from hypothesis import given
from hypothesis import strategies as st


def exactly(value: float) -> Number:
    found = number(value)
    assert found is not None
    return found


class Facts:
    def __init__(self, values: dict[str, int], context: dict[str, Any] | None = None, atoms: int = 0) -> None:
        self.values, self.context, self.atoms, self.bits = values, context or {}, atoms, 0


class Least(LeafType):
    """{"least": name, "value": n}"""

    key = "least"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        if not isinstance(raw.get("value"), int):
            fail("/value", "wrong-type", "value is a number")
        return raw["least"], raw.get("value")

    def json(self, params: Any) -> dict[str, Any]:
        return {"least": params[0], "value": params[1]}

    def parts(self, params: Any) -> tuple[str, ...]:
        return (params[0],)

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        return facts.values.get(params[0], 0) >= params[1]


class Until(LeafType):
    """{"until": instant}"""

    key = "until"
    temporal = True

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        return raw["until"]

    def json(self, params: Any) -> dict[str, Any]:
        return {"until": params}

    def parts(self, params: Any) -> tuple[str, ...]:
        return ()

    def test(self, params: Any, facts: Facts, now: int) -> bool:
        return now < int(params)

    def change(self, params: Any, facts: Facts, now: int) -> int | None:
        return params if now < params else None


class Ahead(Measure):
    """How many of the instants that are known are still to come; None when none was ever known."""

    key, temporal = "ahead", True

    def read(self, facts: Facts, now: int) -> int | None:
        return sum(at > now for at in facts.values.values()) if facts.values else None

    def change(self, facts: Facts, now: int, value: Number, cuts: Sequence[Cut]) -> int | None:
        ahead = sorted(at for at in facts.values.values() if at > now)
        by = fall(cuts, int(value))
        return ahead[by - 1] if by <= value else None


class Coming(MeasuredLeaf):
    """{"coming": {op, value}}"""

    key = "coming"

    def parse(self, raw: Mapping[str, Any], fail: Fail) -> Any:
        body = raw["coming"]
        return Compared(Ahead(), body["op"], exactly(body["value"]), dict(body), body["value"] == 1)


WORDS = Vocabulary([Least(), Until(), Coming(), Context(), Atom()])
leaf = st.one_of(
    st.builds(lambda n, v: {"least": n, "value": v}, st.sampled_from("abc"), st.integers(0, 3)),
    st.builds(lambda t: {"until": t}, st.integers(0, 30)),
    st.builds(
        lambda op, v: {"coming": {"op": op, "value": v}},
        st.sampled_from(NUMERIC),
        st.sampled_from([-1, 0, 0.5, 1, 2, 3]),
    ),
    st.builds(
        lambda op, v: {"context": "country", "op": op, "value": [v, "x"] if op.endswith("in") else v},
        st.sampled_from(["eq", "ne", "in", "not_in", "contains", "lt", "regex"]),
        st.sampled_from(["DE", "fr", "é"]),
    ),
    st.builds(
        lambda op, v: {"context": "hour", "op": op, "value": v}, st.sampled_from(NUMERIC), st.sampled_from([5, 7.5])
    ),
)
tree = st.recursive(
    leaf,
    lambda inner: (
        st.builds(
            lambda kind, items, expect: {kind: items} if expect else {kind: items, "value": False},
            st.sampled_from(["all", "any"]),
            st.lists(inner, min_size=1, max_size=3),
            st.booleans(),
        )
        | st.builds(lambda item: {"not": item}, inner)
    ),
    max_leaves=12,
)
facts = st.builds(
    lambda values, country, hour: Facts(values, {"country": country, "hour": hour}),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 3) | st.integers(4, 30)),
    st.sampled_from(["DE", "FR", "e\u0301", ["de", "x"], None]),
    st.sampled_from([5, 7, 8, "5", None]),
)


class TestReadings:
    @given(st.lists(tree, min_size=1, max_size=5), facts, st.integers(0, 30))
    def test_compiled_interpreted_and_explained_agree(self, raws: list[Any], who: Facts, now: int) -> None:
        nodes = [parse(raw, WORDS) for raw in raws]
        bits, change = compile_set(list(enumerate(nodes)))(who, now)
        for i, node in enumerate(nodes):
            assert bool(bits >> i & 1) == holds(node, who, now) == explain(node, who, now)["result"]
        assert change == min((c for n in nodes if (c := next_change_at(n, who, now)) is not None), default=None)

    @given(
        st.lists(tree, min_size=1, max_size=5),
        facts,
        st.lists(
            st.tuples(st.integers(-2, 9), st.dictionaries(st.sampled_from("abc"), st.integers(0, 30))), max_size=4
        ),
    )
    def test_a_renewed_reading_is_a_fresh_one(
        self, raws: list[Any], who: Facts, steps: list[tuple[int, dict[str, int]]]
    ) -> None:
        program = compile_set([(i, parse(raw, WORDS)) for i, raw in enumerate(raws)])
        now, reading = 5, program.read(who, 5)
        for later, changed in steps:
            now += later
            who = Facts({**who.values, **changed}, who.context)
            reading, fresh = program.renew(reading, who, now, changed), program.read(who, now)
            assert (reading.values, reading.changes, reading.at) == (fresh.values, fresh.changes, now)
            assert program.decide(reading, who) == program(who, now)[0]

    @given(tree, facts, st.integers(0, 30))
    def test_nothing_changes_before_the_next_change(self, raw: Any, who: Facts, now: int) -> None:
        node = parse(raw, WORDS)
        change = next_change_at(node, who, now)
        for later in range(now, min(change or 40, 40)):
            assert holds(node, who, later) == holds(node, who, now)

    @given(tree)
    def test_json_and_text_read_back_to_the_same_tree(self, raw: Any) -> None:
        node = parse(raw, WORDS)
        assert parse(to_json(node), WORDS) == node
        assert from_text(to_text(node), WORDS) == node

    @given(tree, facts, st.integers(0, 30))
    def test_a_split_tree_over_its_atoms_means_the_same(self, raw: Any, who: Facts, now: int) -> None:
        node, kept = parse(raw, WORDS), []

        def keep(durable: Node) -> Node:
            kept.append(durable)
            return Leaf(WORDS.types["atom"], len(kept) - 1)

        rest = split(node, keep)
        atoms = sum(1 << i for i, durable in enumerate(kept) if holds(durable, who, now))
        assert holds(rest, Facts({}, who.context, atoms), now) == holds(node, who, now)
        assert all(leaf.type.key in ("atom", "context") for leaf in leaves(rest))


class TestFaults:
    @pytest.mark.parametrize(
        ("raw", "pointer", "code"),
        [
            ({"all": []}, "/all", "empty"),
            ({"all": [{"leest": 1}]}, "/all/0", "unknown-condition"),
            ({"any": [{"least": "a", "value": "x"}]}, "/any/0/value", "wrong-type"),
            ({"not": {"context": "contry", "op": "eq", "value": "DE"}}, "/not/context", "unknown-field"),
            ({"all": [{"until": 1}], "vlaue": True}, "/vlaue", "unknown-field"),
            ({"context": "country", "op": "regex", "value": "(a)\\1"}, "/value", "bad-pattern"),
            ([], "", "not-a-condition"),
            ({"all": [{"until": 1}], "any": []}, "", "ambiguous"),
        ],
    )
    def test_a_fault_says_where_and_what(self, raw: Any, pointer: str, code: str) -> None:
        with pytest.raises(Invalid) as caught:
            parse(raw, WORDS)
        assert (caught.value.faults[0].pointer, caught.value.faults[0].code) == (pointer, code)

    def test_a_misspelt_word_gets_the_nearest_known_one(self) -> None:
        with pytest.raises(Invalid, match="did you mean least"):
            parse({"leest": 1}, WORDS)

    @pytest.mark.parametrize(
        "text",
        [
            "\n".join("  " * n + "ALL are TRUE" for n in range(400)),
            "ALL are TRUE\n" + "  until 1\n" * 100_000,
            "until " + "[" * 100_000,
            "until " + "9" * 10_000,
        ],
        ids=["deep", "long", "nested", "huge"],
    )
    def test_a_text_is_bounded_too(self, text: str) -> None:
        with pytest.raises(Invalid):
            from_text(text, WORDS)

    def test_of_very_many_faults_the_first_are_told(self) -> None:
        for raw in ({"all": [{"leest": 1}] * 400}, {"all": [{"until": 1}], **{f"x{n}": 1 for n in range(10_000)}}):
            with pytest.raises(Invalid) as caught:
                parse(raw, WORDS)
            assert 10 <= len(caught.value.faults) <= MOST_FAULTS

    def test_depth_and_size_are_bounded(self) -> None:
        deep: Any = {"until": 1}
        for _ in range(200):
            deep = {"not": deep}
        for raw in (deep, {"all": [{"until": 1}] * 1000}):
            with pytest.raises(Invalid) as caught:
                parse(raw, WORDS)
            assert caught.value.faults[0].code == "too-large"


class TestCuts:
    @given(st.sampled_from(NUMERIC), st.floats(-2, 12), st.integers(0, 12))
    def test_no_answer_changes_between_two_cuts(self, op: str, literal: float, count: int) -> None:
        one = Compared(Ahead(), op, exactly(literal), {})
        answers = [compare(op, n, literal) for n in range(16)]
        by, up = fall(one.cuts(), count), next(iter(rise(one.cuts(), count)), 16)
        assert all(answers[n] == answers[count] for n in range(max(0, count - by + 1), min(up, 16)))
        if op not in ("eq", "ne"):  # those have two cuts next to each other, and may look once too often
            assert by > count or answers[count - by] != answers[count]
            assert up > 15 or answers[up] != answers[count]
        found = first_passed(range(count, 16), count, one.cuts(), lambda n: n)
        assert (16 if found is None else found) == min(up, 16)

    def test_a_group_is_never_everybody_by_accident(self) -> None:
        assert not holds(Group(False, True, ()), Facts({}), 0)
