"""Which If-Match headers name a version."""

from __future__ import annotations

import pytest
from chassis.documents import expected_version
from chassis.problems import Problem


@pytest.mark.parametrize("header", ["2", '"2"', ' "2" '])
def test_a_version_is_named_in_two_quotes_or_none(header: str) -> None:
    assert expected_version(header) == 2


@pytest.mark.parametrize("header", ['"2', '2"', '""2""', "'2'", '"2"2"', "2 3", 'W/"2"', "*", '""', ""])
def test_what_names_none_matches_nothing(header: str) -> None:
    with pytest.raises(Problem) as refused:
        expected_version(header)
    assert (refused.value.status, refused.value.slug) == (412, "stale-version")
