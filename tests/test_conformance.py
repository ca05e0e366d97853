"""Our own case files pass, each exercises what it says, and the runner hides nothing."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conditions import Vocabulary
from segment_svc.domain import checks, part, ruleset
from segment_svc.domain.part import UTC
from segment_svc.domain.vocabulary import vocabulary

from tests.conformance import segments
from tests.conformance.report import Report

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "tests" / "cases").rglob("*.json"))
SEGMENTS = [path for path in FILES if path.parent.name == "segments"]
CASES: list[dict[str, Any]] = [case for path in SEGMENTS for case in json.loads(path.read_text())["cases"]]
CONDITIONS = sorted(vocabulary((), UTC, {}).types)


def run(path: Path, *flags: str) -> str:
    argv = [sys.executable, str(ROOT / "tools/conformance.py"), str(path), *flags]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def play(*cases: dict[str, Any]) -> Report:
    return asyncio.run(segments.run(list(cases), segments.pure))


def named(name: str) -> dict[str, Any]:
    return copy.deepcopy(next(case for case in CASES if case["id"] == name))


class TestCases:
    @pytest.mark.parametrize("path", [p for p in FILES if p not in SEGMENTS], ids=lambda p: p.stem)
    def test_promotions_pass(self, path: Path) -> None:
        assert " 0 failed" in run(path)

    @pytest.mark.servers
    @pytest.mark.parametrize("path", SEGMENTS, ids=lambda p: p.stem)
    def test_the_real_flows_pass_and_lack_nothing(self, path: Path) -> None:
        assert run(path, "--strict").endswith(" passed, 0 failed, 0 unsupported")

    def test_the_domain_passes_and_lacks_only_what_needs_a_database(self) -> None:
        report = play(*CASES)
        assert not report.totals["failed"], report.text()
        assert report.totals["passed"] > len(CASES) * 0.9
        assert all(lacking.endswith(segments.NEEDS_DATABASE) for lacking in report.missing), report.text()

    @pytest.mark.parametrize("key", CONDITIONS)
    def test_a_condition_that_is_lost_is_missed(self, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def without(*args: Any) -> Vocabulary:
            return Vocabulary([t for t in vocabulary(*args).types.values() if t.key != key])

        whole = play(*CASES).totals["passed"]
        for module in (part, checks):
            monkeypatch.setattr(module, "vocabulary", without)
        assert play(*CASES).totals["passed"] < whole

    @pytest.mark.parametrize("key", [key for key in CONDITIONS if key != "context"])
    def test_a_condition_that_always_answers_the_same_is_missed(
        self, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        types = vocabulary((), UTC, {}).types
        monkeypatch.setattr(segments, "RuleSet", Walked)
        assert not play(*CASES).totals["failed"]
        for answer in (False, True):
            with monkeypatch.context() as patch:
                patch.setattr(type(types[key]), "bind", lambda self, params, answer=answer: lambda facts, now: answer)
                assert play(*CASES).totals["failed"]


class Walked(ruleset.RuleSet):
    """Rules decided by walking the tree, where a leaf is all that answers."""

    def timeline(self, profile: Any, now: int, **known: Any) -> Any:
        found = super().timeline(profile, now, **known)
        for key, bit in self.bits.items():
            result = self.explain(key, profile, now, who=known["key"])["result"]
            found.bits = found.bits & ~(1 << bit) | result << bit
        return found


class TestHonesty:
    def test_every_difference_of_a_case_is_told(self) -> None:
        case = named("no-cart-is-an-empty-cart")
        for wanted in case["steps"][-1]["members"].values():
            wanted["in"], wanted["out"] = wanted["out"], wanted["in"]
        case["steps"].append({"do": "expect", "at": "2026-03-02T10:00:00Z", "members": {"some": {"in": ["guest"]}}})
        told = play(case).lines[0]
        assert told.count("should be") == 4 * 5 + 1
        assert f"step {len(case['steps']) - 1}: guest should be in some" in told

    def test_what_nobody_judges_makes_a_case_unsupported(self) -> None:
        for where, value in ((("steps", -1), {"members_at_least": 1}), ((), {"price": 1}), (("segments", 0), {"valid_to": 1}),
                             (("profiles", 0), {"group": "x"}), (("steps", 0, "event"), {"currency": "EUR"}),
                             (("steps", -1, "members", "some"), {"maybe": []}), (("steps", -1, "members"), {"nobody-knows": {}}),
                             (("steps", 0, "event", "props"), {"colour": "red"}), (("steps", -1), {"do": "pray"})):  # fmt: skip
            case = named("no-cart-is-an-empty-cart")
            place: Any = case
            for step in where:
                place = place[step]
            place.update(value)
            report = play(case)
            assert report.totals["unsupported"] == 1, (value, report.text())

    def test_an_event_that_is_refused_fails_its_case(self) -> None:
        case = named("no-cart-is-an-empty-cart")
        case["steps"][0]["event"]["props"]["items"][0]["quantity"] = -1
        assert "an event was refused: negative" in play(case).lines[0]

    def test_a_definition_that_should_be_refused_and_is_not_fails_its_case(self) -> None:
        case = named("names-are-checked")
        case["steps"][0]["segment"]["condition"]["events"]["where"]["field"] = "brand"
        assert "refused was not refused" in play(case).lines[0]

    def test_the_exit_status_says_what_was_not_supported_when_asked(self, tmp_path: Path) -> None:
        case = named("days-since")
        case["segments"][0]["condition"] = {"telepathy": 1}
        path = tmp_path / "cases.json"
        path.write_text(json.dumps([case]))
        assert run(path, "--pure") == "0 passed, 0 failed, 1 unsupported"
        with pytest.raises(AssertionError, match="telepathy condition"):
            run(path, "--pure", "--strict")
