"""Odd JSON for tests: values nobody sends on purpose, and documents with one of them in one place."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

ODD = st.one_of(
    st.sampled_from(
        [
            None, True, False, "", "\0", " ", "--5", "5e3", "1_0", "٣", "NaN", "-", "-0", "9" * 18, "9" * 19, "9" * 30,
            "x" * 1999, "x" * 2001,
            "\u202e", "\U0001f600" * 700, 0, -1, 2**53, 2**53 + 1, -(2**63), 2**63, 2**64, 10**26, 10**400, 0.0, -0.0,
            1.5, 1e30, 1e308, 5e-324, [], {}, [[]], [None], {"": 1}, {"a": None}, {"amount": "--5", "currency": "EUR"},
            {"amount": 1, "currency": "XXQ"}, {"amount": {"amount": 1}}, "2026-02-30T00:00:00Z",
            "9999-12-31T23:59:59+00:00",
        ]
    ),
    st.integers(),
    st.text(max_size=20),
    st.integers(490, 510).map(lambda n: [{}] * n),
    st.integers(1, 400).map(lambda n: {f"k{i}": i for i in range(n)}),
    st.integers(1, 300).map(lambda n: json.loads('{"a":' * n + "1" + "}" * n)),
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=20,
    ),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield from places(item, (*path, step))


def put(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """A copy with something else in one place."""
    if not path:
        return odd
    out = copy.deepcopy(value)
    inner = out
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = odd
    return out
