"""A rule's literal decides the comparison, every operator does what its name says on every value, and none ever raises."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from datetime import UTC, datetime
from fractions import Fraction
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from conditions import values
from conditions.context import Context
from conditions.kinds import AMOUNT, CATEGORY, CODE, FEW, FLAG, NUMBER, OPEN, TEXT, literal_for, matcher_for
from conditions.operators import MOST_LITERAL, NEGATIVE, OPERATORS, ORDER, compare, literal_of, matcher
from conditions.values import MOST_ELEMENTS, MOST_FOLDED, MOST_TEXT, day, fold, instant, missing, number
from hypothesis import given
from hypothesis import strategies as st

ODD_TEXTS = [
    "", " ", "10", "10.0", "010", "+10", "-0", "1e1", "1_0", "१०", "inf", "nan", "9" * 30, "9" * 31, "9" * 5000, "0." + "3" * 40,
    "a", "A", "ß", "SS", "ſ", "é", "é", "İ", "ﬃ", "ᾳ", "\ud800", "a\0b", "a/b", "a/bc", "2026-01-02", "2026-01-02T10:00:00Z",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-W01-1", "20260102", "true", "null", "x" * 9000, "é" * 9000,
]  # fmt: skip
ODD_SCALARS: list[Any] = [
    *ODD_TEXTS, None, True, False, 0, 1, -1, 10, 10.0, 0.1, 1.5, 10**23, 1e23, 10**29, 10**30, 2**53 + 1, 1e300, math.inf,
    math.nan, 5e-324, -0.0, [], {}, ["a", 10], [["A"], None],
]  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers(-20, 20) | st.sampled_from([10**29, 10**31, 10**4000, 2**53 + 1, -(10**31)])
    | st.floats(-20, 20).map(lambda x: round(x, 2)) | st.sampled_from([1e22, 1e300, math.inf, -math.inf, math.nan, 5e-324])
    | st.sampled_from(ODD_TEXTS) | st.text(max_size=5)
)  # fmt: skip
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=8
)  # fmt: skip


def refusals(op: str, raw: Any, *, exact: bool = False) -> tuple[Any, list[tuple[str, str, str]]]:
    faults: list[tuple[str, str, str]] = []
    return literal_of(op, raw, lambda *fault: faults.append(fault), exact=exact), faults


class Oracle:
    """The rules of comparing, said again as plainly as possible."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact

    def number(self, x: Any) -> Fraction | None:
        if isinstance(x, bool) or not isinstance(x, int | float | str):
            return None
        if isinstance(x, float) and not math.isfinite(x):
            return None
        if isinstance(x, str):
            found = re.fullmatch(r"[+-]?([0-9]+)(\.([0-9]+))?", x)
            if not found or len(found[1] + (found[3] or "")) > 30:
                return None
        if isinstance(x, int | float) and abs(x) >= 10**30:
            return None
        return Fraction(x) if isinstance(x, int) else Fraction(str(x))

    def text(self, x: Any) -> str | None:
        if not isinstance(x, str):
            value = self.number(x)
            if value is None:
                return None
            x = str(value) if value.denominator == 1 else format(__import__("decimal").Decimal(repr(x)), "f")
        if self.exact:
            return str(x)
        return unicodedata.normalize("NFC", unicodedata.normalize("NFD", x).casefold())

    def items(self, x: Any) -> list[Any]:
        return (
            [y for item in x for y in self.items(item)]
            if isinstance(x, list | tuple)
            else []
            if x in (None, "")
            else [x]
        )

    def equal(self, value: Any, literal: Any) -> bool:
        if isinstance(literal, bool) or isinstance(value, bool):
            return isinstance(literal, bool) and literal is value
        if isinstance(literal, str):
            return self.text(value) == self.text(literal)
        return self.number(value) is not None and self.number(value) == self.number(literal)

    def one(self, op: str, value: Any, literal: Any) -> bool:
        if op in ("eq", "in", "includes"):
            return any(self.equal(value, item) for item in (literal if isinstance(literal, tuple) else (literal,)))
        if op in ORDER:
            for key in (self.text,) if self.exact else (self.number, instant, self.text):
                a, b = key(value), key(literal)
                if a is not None and b is not None and (isinstance(literal, str) or key == self.number):
                    return bool({"lt": a < b, "lte": a <= b, "gt": a > b, "gte": a >= b}[op])  # type: ignore[operator]
            return False
        if op == "on_day":
            return day(value) is not None and day(value) == day(literal)
        found, wanted = self.text(value), self.text(literal)
        if found is None or wanted is None:
            return False
        return {
            "contains": wanted in found,
            "starts_with": found.startswith(wanted),
            "ends_with": found.endswith(wanted),
        }[op]

    def compare(self, op: str, value: Any, literal: Any) -> bool:
        if op in ("exists", "missing"):
            return bool(self.items(value)) is (op == "exists")
        if op in NEGATIVE:
            return not self.compare(NEGATIVE[op], value, literal)
        return any(self.one(op, item, literal) for item in self.items(value))


class TestTotal:
    @given(st.sampled_from(OPERATORS), anything, anything, st.booleans())
    def test_a_literal_is_refused_or_compares_with_any_value(self, op: str, raw: Any, value: Any, exact: bool) -> None:
        literal, faults = refusals(op, raw, exact=exact)
        if faults:
            assert all(pointer.startswith("/value") and len(detail) < 400 for pointer, _, detail in faults)
        else:
            assert type(compare(op, value, literal, exact=exact)) is bool
            hash(literal)
            assert json.loads(json.dumps(literal)) == (list(literal) if isinstance(literal, tuple) else literal)

    @given(st.sampled_from([o for o in OPERATORS if o != "regex"]), anything, anything, st.booleans())
    def test_comparing_is_what_the_plain_rules_say(self, op: str, raw: Any, value: Any, exact: bool) -> None:
        if op in ("in", "not_in"):
            raw = [raw]
        literal, faults = refusals(op, raw, exact=exact)
        if not faults:
            assert compare(op, value, literal, exact=exact) == Oracle(exact).compare(op, value, literal)

    @given(st.sampled_from([o for o in OPERATORS if o != "regex"]), scalars, st.booleans())
    def test_comparing_with_itself_is_what_the_plain_rules_say(self, op: str, raw: Any, exact: bool) -> None:
        literal, faults = refusals(op, [raw] if op in ("in", "not_in") else raw, exact=exact)
        if not faults and not (isinstance(raw, str) and len(raw) > MOST_TEXT):
            assert compare(op, raw, literal, exact=exact) == Oracle(exact).compare(op, raw, literal)

    @pytest.mark.parametrize("op", [o for o in OPERATORS if o != "regex"])
    def test_every_odd_value_compares_with_every_odd_literal_as_the_plain_rules_say(self, op: str) -> None:
        compared = 0
        for raw in ODD_SCALARS:
            for exact in (False, True):
                literal, faults = refusals(op, [raw] if op in ("in", "not_in") else raw, exact=exact)
                for value in [] if faults else ODD_SCALARS:
                    if not (isinstance(value, str) and len(value) > MOST_TEXT):
                        assert compare(op, value, literal, exact=exact) == Oracle(exact).compare(op, value, literal)
                        compared += 1
        assert compared

    def test_a_pattern_looks_at_anything(self) -> None:
        for value in ODD_SCALARS:
            assert type(compare("regex", value, "^.9")) is bool
        assert compare("regex", "\ud800", "^.$")

    @pytest.mark.parametrize(
        "value", ["9999-06-01", "0001-01-01", "2026-02-30", "2026-W01-1", "20260102", "2026-1-2", "२०२६-०१-०२"]
    )
    def test_what_is_no_date_or_too_far_is_no_instant(self, value: str) -> None:
        assert instant(value) is None

    @given(anything)
    def test_a_number_is_exact_or_none(self, value: Any) -> None:
        expected = Oracle(True).number(value)
        found = number(value)
        assert (None if found is None else Fraction(found)) == expected

    def test_what_is_looked_at_is_bounded(self) -> None:
        long, wide = "é" * 10_000_000, [["x"] * 100_000] * 100_000
        assert len(fold(long)) == MOST_TEXT
        assert not compare("eq", long, "é" * MOST_LITERAL)
        assert compare("starts_with", long, "É")
        assert compare("ends_with", long + "!", "É!")
        assert not compare("includes", wide, "y")
        assert compare("includes", [None] + ["x"] * (MOST_ELEMENTS - 2) + ["y"], "y")
        assert not compare("includes", ["x"] * MOST_ELEMENTS + ["y"], "y")
        assert not compare("eq", 10**5000, "1")
        assert refusals("eq", 10**5000)[1]
        deep: Any = "x"
        for _ in range(100_000):
            deep = [deep]
        assert not missing([[["x"]]])
        assert not compare("eq", deep, "x")

    @pytest.mark.parametrize("marks", ["\u0301\u0316" * 1000, "\u0301" * 999 + "\u0316" * 1000])
    def test_of_very_many_marks_over_a_letter_the_first_ones_count(self, marks: str) -> None:
        assert 1 < len(fold("a" + marks + "b")) <= 32
        assert compare("eq", "A" + marks + "b", "a" + marks + "b")
        assert not compare("eq", "a" + marks + "b", "a" + marks + "c")
        twenty = "a" + marks[:20]
        assert fold(twenty + "b") == unicodedata.normalize("NFC", twenty + "b")

    def test_what_is_kept_of_folded_texts_is_bounded_and_changes_no_answer(self) -> None:
        texts = [f"É{n}" * 1000 for n in range(1000)]
        for _ in range(2):
            assert all(fold(text) == text.lower() for text in texts)
            kept = sum(len(key) + len(folded) for key, folded in values._folds.items())
            assert 0 < kept <= MOST_FOLDED


class TestMeaning:
    @pytest.mark.parametrize("op", [o for o in OPERATORS if o not in ("missing", "exists")])
    @pytest.mark.parametrize("value", [None, "", [], [""], [None, [""]]])
    def test_what_is_missing_satisfies_only_negative_operators(self, op: str, value: Any) -> None:
        literal = ("x",) if op in ("in", "not_in") else "2026-01-01"
        assert compare(op, value, literal) == (op == "ne" or op.startswith("not_"))

    @pytest.mark.parametrize(
        ("op", "value", "literal", "answer"),
        [
            ("eq", "10.0", 10, True), ("eq", "10", 10, True), ("eq", "1e1", 10, False), ("eq", " 10", 10, False),
            ("eq", "10.0", "10", False), ("eq", 10, "10", True), ("eq", 10.0, "10", True), ("eq", "010", "10", False),
            ("eq", True, 1, False), ("eq", 1e23, 10**23, True), ("eq", 10**23, 1e23, True),
            ("lt", 9007199254740993, 9007199254740992.0, False), ("eq", 1, True, False), ("eq", "true", True, False),
            ("eq", True, True, True),
            ("eq", "900000000000000001", 900000000000000002, False), ("eq", "0.1", 0.1, True),
            ("gt", "0.30000000000000000001", 0.3, True),
            ("eq", "STRASSE", "straße", True), ("eq", "Caf\u00e9", "CAFE\u0301", True), ("eq", "10", "१०", False),
            ("lt", "9", "10", True), ("lt", "9a", "10a", False), ("lt", "2026-01-02", "2026-01-02T00:00:01Z", True),
            ("gt", "b", "A", True), ("in", ["x", "b"], ("A", "B"), True), ("not_in", ["x", "b"], ("A", "B"), False),
            ("not_in", ["x"], ("A", "B"), True), ("ne", ["a", "b"], "b", False),
            ("contains", ["foo", "bar"], "AR", True),
            ("not_contains", ["foo", "bar"], "zz", True), ("starts_with", 1067, "10", True),
            ("contains", True, "tru", False),
            ("includes", [["a"], "b"], ("c", "A"), True), ("on_day", "2026-01-02T23:59:59Z", "2026-01-02", True),
            ("on_day", "2026-01-02T23:30:00-02:00", "2026-01-02", False), ("not_on_day", "no date", "2026-01-02", True),
        ],
    )  # fmt: skip
    def test_the_literal_decides(self, op: str, value: Any, literal: Any, answer: bool) -> None:
        assert compare(op, value, literal) is answer

    @pytest.mark.parametrize(
        ("value", "literal", "same"),
        [
            ("01067", "1067", False), ("12E3", "12000", False), (1067, "1067", True), (1067, "01067", False),
            ("ab", "AB", False),
            ("e\u0301", "\u00e9", False), (900000000000000001, "900000000000000002", False), (True, "True", False),
        ],
    )  # fmt: skip
    def test_a_code_is_what_stands_there(self, value: Any, literal: str, same: bool) -> None:
        assert compare("eq", value, literal, exact=True) is same
        assert compare("in", value, (literal, "other"), exact=True) is same
        assert compare("ne", value, literal, exact=True) is not same

    def test_codes_are_ordered_by_their_characters(self) -> None:
        assert compare("lt", "10", "9", exact=True)

    @pytest.mark.parametrize(
        ("op", "raw"),
        [
            ("eq", ""), ("eq", ["a"]), ("eq", None), ("eq", {}), ("eq", 10**30), ("eq", math.nan),
            ("eq", "x" * 501), ("lt", True),
            ("in", []), ("in", "a"), ("in", [["a"]]), ("in", [1] * 1001), ("contains", ""), ("contains", 5),
            ("starts_with", ["a"]),
            ("ends_with", True), ("on_day", "tomorrow"), ("on_day", 5), ("on_day", "2026-02-30"), ("includes", {}),
            ("includes", [[]]),
            ("exists", 1), ("eq", "a\0"), ("eq", "\ud800"), ("regex", ""), ("regex", 5), ("regex", "x" * 201),
            ("regex", "a\0"),
            ("regex", "\ud800"), ("regex", "(?=a)b"), ("regex", r"(a)\1"), ("regex", "(a{1000}){1000}"),
            ("regex", r"\pL{100}"),
            ("regex", "("), ("regex", "a{1000}a{1000}"), ("gte", 123456789012345678.5), ("in", [1, -(2.0**53)]),
        ],
    )  # fmt: skip
    def test_what_an_operator_cannot_do_is_refused(self, op: str, raw: Any) -> None:
        assert refusals(op, raw)[1]

    def test_a_number_for_a_code_is_refused_with_a_hint(self) -> None:
        assert "in quotes" in refusals("eq", 1067, exact=True)[1][0][2]
        assert refusals("in", ["01067", 1067], exact=True)[1][0][0] == "/value/1"

    def test_a_day_is_a_day_in_the_zone(self) -> None:
        cairo = ZoneInfo("Africa/Cairo")
        assert compare("on_day", "2026-01-01T23:00:00Z", "2026-01-02", zone=cairo)
        assert compare("on_day", "2026-01-02", "2026-01-02", zone=cairo)
        assert instant("2026-01-02", cairo) == instant("2026-01-01T22:00:00Z")

    @given(st.datetimes(datetime(2, 1, 2), datetime(9998, 12, 30)))
    def test_an_instant_is_its_milliseconds(self, moment: datetime) -> None:
        expected = round((moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
        assert instant(moment.isoformat()) == expected


class TestPatterns:
    @pytest.mark.parametrize("source", ["((a+))+$", "(a|a)*b", "(a|aa)+$", "(.*a){12}z", "^(a?){40}a{40}$"])
    @given(st.text("ab", max_size=30))
    def test_a_repeat_in_a_repeat_finds_what_it_says(self, source: str, value: str) -> None:
        assert compare("regex", value, source) == (re.search(source.replace("$", r"\Z"), value) is not None)

    def test_a_pattern_has_no_regard_to_case_and_form_except_in_codes(self) -> None:
        assert compare("regex", "CAFE\u0301 bar", "caf\u00e9 BAR")
        assert compare("regex", "AB-12", "^[A-Z]+-[0-9]+$", exact=True)
        assert not compare("regex", "ab-12", "^[A-Z]+-[0-9]+$", exact=True)

    def test_only_the_beginning_of_a_text_is_looked_at(self) -> None:
        assert compare("regex", "x" * 199 + "y", "y")
        assert not compare("regex", "x" * 200 + "y", "y")


class TestKinds:
    @pytest.mark.parametrize(
        ("kind", "op", "raw", "pointer"),
        [
            (NUMBER, "starts_with", "1", "/op"), (AMOUNT, "exists", None, "/op"),
            (AMOUNT, "missing", None, "/op"), (NUMBER, "eq", "1", "/value"), (FLAG, "eq", "true", "/value"),
            (FLAG, "in", [True], "/op"),
            (CODE, "eq", 1, "/value/"), (TEXT, "eq", True, "/value"), (CATEGORY, "regex", "a", "/op"),
            (OPEN, "eqq", 1, "/op"),
            (CATEGORY, "contains", "a", "/op"), (NUMBER, "in", [1, "2"], "/value"), (OPEN, ["eq"], 1, "/op"),
            (OPEN, None, 1, "/op"),
        ],
    )  # fmt: skip
    def test_a_field_is_asked_what_its_kind_can_answer(self, kind: Any, op: Any, raw: Any, pointer: str) -> None:
        faults: list[tuple[str, str, str]] = []
        literal_for(kind, op, raw, lambda *fault: faults.append(fault))
        assert faults[0][0] == pointer.rstrip("/")

    @given(
        st.lists(st.sampled_from(["a", "ab", "b", "a/b"]), min_size=1, max_size=3).map("/".join),
        st.sampled_from(["a", "a/b", "a/", "b"]),
    )
    def test_a_category_holds_for_what_is_below_it(self, path: str, literal: str) -> None:
        wanted = literal.rstrip("/").split("/")
        below = path.split("/")[: len(wanted)] == wanted
        for op, wanted_answer in (("eq", below), ("starts_with", below), ("ne", not below)):
            assert matcher_for(CATEGORY, op, literal)(path) is wanted_answer
        for others in (("zzz",), tuple(f"z{n}" for n in range(FEW))):
            assert matcher_for(CATEGORY, "in", (literal, *others))([["q"], path]) is below
            assert matcher_for(CATEGORY, "not_in", (literal, *others))([["q"], path]) is not below
        assert not matcher_for(CATEGORY, "eq", literal)(None)
        assert matcher_for(CATEGORY, "ne", literal)(None)

    def test_a_matcher_is_made_once_and_asked_often(self) -> None:
        matches = matcher("in", ("a", 1, True))
        assert [matches(v) for v in ("A", "1", 1.0, True, False, None)] == [True, True, True, True, False, False]

    @pytest.mark.parametrize("said", [True, "true"])
    def test_a_flag_of_a_request_is_one_as_a_query_has_it_too(self, said: Any) -> None:
        leaf = Context()
        params = leaf.parse({"context": "logged_in", "op": "eq", "value": True}, lambda *_: None)
        assert leaf.test(params, SimpleNamespace(context={"logged_in": said}), 0)
        assert not leaf.test(params, SimpleNamespace(context={"logged_in": "false"}), 0)
        assert not leaf.test(params, SimpleNamespace(context={}), 0)
