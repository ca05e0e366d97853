"""Events that are almost right: what the codec takes is within its stated bounds, and it refuses the rest by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from contracts.codec import MESSAGES, Codec, plausible
from contracts.fields import MOST_LIST, MOST_NUMBER, MOST_TEXT, MOST_WHOLE, Undecodable
from devstack.odd import ODD, places, put
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_795_514_400_000
CODEC = Codec()
EXAMPLES = [json.loads(p.read_text()) for p in sorted((Path(__file__).parents[1] / "examples").rglob("*.json"))]


def within_bounds(value: Any) -> bool:
    if isinstance(value, dict):
        return all(within_bounds(name) and within_bounds(item) for name, item in value.items())
    if isinstance(value, list):
        return len(value) <= MOST_LIST and all(map(within_bounds, value))
    if isinstance(value, str):
        return len(value) <= MOST_TEXT and "\0" not in value
    if isinstance(value, float):
        return abs(value) < MOST_NUMBER
    return value is None or isinstance(value, bool) or abs(value) <= MOST_WHOLE


def taken(value: bytes, headers: Any = ()) -> bool:
    """Whether the codec takes it; what it takes can be stored and is within bounds, what it refuses has a name."""
    try:
        event = CODEC.decode(value, headers)
        plausible(event, NOW)
    except Undecodable as error:
        reason, detail = error.reason, error.detail
    else:
        assert within_bounds(event.data)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(event.data)) == event.data
        return True
    assert reason.replace("-", "").isalpha()
    assert len(detail.encode()) < 5000
    return False


class TestJson:
    @pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e["type"])
    @settings(max_examples=150)
    @given(data=st.data())
    def test_one_odd_value_anywhere(self, example: dict[str, Any], data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(list(places(example))))
        taken(json.dumps(put(example, path, data.draw(ODD))).encode())

    @given(st.sampled_from(EXAMPLES), st.data())
    def test_cut_and_flipped_bytes(self, example: dict[str, Any], data: st.DataObject) -> None:
        raw = bytearray(json.dumps(example).encode())
        for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=3)):
            raw[at] = byte
        taken(bytes(raw[: data.draw(st.integers(0, len(raw)))]))

    def test_the_examples_themselves_are_taken(self) -> None:
        assert all(taken(json.dumps(example).encode()) for example in EXAMPLES)


def headers_of(example: dict[str, Any]) -> list[tuple[str, bytes | None]]:
    named = {n: example.get(n, "1.0") for n in ("id", "source", "type", "time", "subject", "specversion")}
    return [("content-type", b"application/protobuf"), *((f"ce_{n}", str(v).encode()) for n, v in named.items())]


class TestProtobuf:
    @given(st.sampled_from(EXAMPLES), st.data())
    def test_flipped_bytes_and_odd_headers(self, example: dict[str, Any], data: st.DataObject) -> None:
        raw = bytearray(json_format.ParseDict(example["data"], MESSAGES[example["type"]]()).SerializeToString())
        for byte in data.draw(st.lists(st.integers(0, 255), max_size=3)):
            raw.insert(data.draw(st.integers(0, len(raw))), byte)
        headers = headers_of(example)
        spot = data.draw(st.integers(0, len(headers) - 1))
        odd = data.draw(st.none() | st.binary(max_size=8) | st.just(headers[spot][1]))
        taken(bytes(raw), [*headers[:spot], (headers[spot][0], odd), *headers[spot + 1 :]])

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e31])
    def test_a_number_that_is_none_is_refused(self, number: float) -> None:
        example = next(e for e in EXAMPLES if e["type"] == "custom")
        message = MESSAGES["custom"](name="x")
        message.props.fields["n"].number_value = number
        assert not taken(message.SerializeToString(), headers_of(example))
        message.props.fields["n"].number_value = 1.5
        assert taken(message.SerializeToString(), headers_of(example))
