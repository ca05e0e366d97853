"""Batches as a fetch brings them: one that the client cannot read is read as far as it can be, and every offset is there."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords
from chassis import bus_records
from chassis.bus_records import _Records


class Odd(str):
    """The name of a header that is no text."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe"


def odd_records(*, odd: bool = True, codec: int = 0) -> Any:
    """A builder of three records, the second with an odd header."""
    builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, -1, 16_384)
    for n, headers in enumerate(([("a", b"1")], [(Odd("x") if odd else "x", b"")], [("b", None)])):
        builder.append(n, 1000 + n, b"key-%d" % n, b"value-%d" % n, headers)
    return builder


async def odd_batch(producer: AIOKafkaProducer, topic: str) -> None:
    """A record between two good ones, in one batch, whose header has a name that is no text."""
    made = producer.create_batch()
    made._builder = odd_records()
    made._relative_offset = 3
    made.close()
    await (await producer.send_batch(made, topic, partition=0))


def packed(count: int, large: bytes, place: str) -> Any:
    """A builder of as many records, compressed, that are large in one place: the key, the value or a header."""
    builder = _DefaultRecordBatchBuilderPy(2, 4, 0, -1, -1, -1, 1 << 30)
    record: dict[str, Any] = {"key": None, "value": b"", "headers": []}
    record[f"{place}s" if place == "header" else place] = [("a", large)] if place == "header" else large
    for n in range(count):
        builder.append(n, 1000, **record)
    return builder


def batches(*more: Any, change: Callable[[bytearray], None] | None = None, **made: Any) -> bytes:
    """An odd batch, changed, and plain ones after it."""
    first = bytearray(odd_records(**made).build())
    if change is not None:
        change(first)
    return bytes(first) + b"".join(builder.build() for builder in more)


def read(data: bytes) -> list[tuple[int, bytes | None, bytes | None, list[Any]]]:
    records, found = _Records(data), []
    while records.has_next():
        batch = records.next_batch()
        assert batch.next_offset == batch.base_offset + 3
        found += [(r.offset, r.key, r.value, list(r.headers)) for r in batch]
    return found


WHOLE = [(n, b"key-%d" % n, b"value-%d" % n, h) for n, h in enumerate(([("a", b"1")], [("x", b"")], [("b", None)]))]
NO_HEADERS = (1, b"key-1", b"value-1", [])


class TestRecords:
    @pytest.mark.parametrize("codec", range(5))
    def test_what_the_client_reads_is_read_as_it_reads_it(self, codec: int) -> None:
        data = batches(odd_records(odd=False), odd=False, codec=codec)
        assert read(data) == WHOLE * 2
        inner, plain = MemoryRecords(data), []
        while inner.has_next():
            plain += [(r.offset, r.key, r.value, list(r.headers)) for r in inner.next_batch()]
        assert read(data) == plain

    @pytest.mark.parametrize("codec", range(5))
    def test_a_header_whose_name_is_no_text_costs_the_headers_of_its_record_only(self, codec: int) -> None:
        assert read(batches(odd_records(odd=False), codec=codec)) == [WHOLE[0], NO_HEADERS, WHOLE[2], *WHOLE]

    def test_after_a_record_of_impossible_length_there_are_holes_up_to_the_next_batch(self) -> None:
        def longer(data: bytearray) -> None:
            data[data.index(b"key-1") - 5] = 0x7E

        holes = [(1, None, None, []), (2, None, None, [])]
        assert read(batches(odd_records(odd=False), odd=False, change=longer)) == [WHOLE[0], *holes, *WHOLE]

    def test_a_batch_that_cannot_be_unpacked_is_holes(self) -> None:
        def garbled(data: bytearray) -> None:
            data[65:75] = b"\xff" * 10

        holes = [(n, None, None, []) for n in range(3)]
        assert read(batches(odd_records(odd=False), odd=False, codec=1, change=garbled)) == [*holes, *WHOLE]

    @pytest.mark.parametrize("codec", range(1, 5))
    def test_what_unpacks_to_more_than_is_good_is_holes_and_takes_no_memory(
        self, codec: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, -1, 1 << 30)
        for n in range(3):
            builder.append(n, 1000, b"k", bytes(10 << 20), [])
        data = bytes(builder.build())
        assert [value for _, _, value, _ in read(data)] == [bytes(bus_records.MOST_VALUE)] * 3
        monkeypatch.setattr(bus_records, "MOST_UNPACKED", 20 << 20)
        tracemalloc.start()
        assert read(data + bytes(odd_records(odd=False).build()))[:3] == [(n, None, None, []) for n in range(3)]
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
        tracemalloc.stop()

    def test_what_came_whole_keeps_its_length(self) -> None:
        builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1 << 30)
        for n in range(3):
            builder.append(n, 1000, b"k", bytes(1 << 20), [])
        assert [value for _, _, value, _ in read(bytes(builder.build()))] == [bytes(1 << 20)] * 3

    @pytest.mark.parametrize("codec", range(1, 5))
    @pytest.mark.parametrize("place", ["key", "header", "name"])
    def test_nothing_of_a_record_stays_as_large_as_it_unpacks_to(self, codec: int, place: str) -> None:
        large, small = "\u20ac" * (2 << 20), ("content-type", b"x")
        key = large.encode() if place == "key" else b"k"
        headers = [
            small,
            (large, b"") if place == "name" else ("a", large.encode() if place == "header" else b""),
            small,
        ]
        builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, -1, 1 << 30)
        for n in range(3):
            builder.append(n, 1000, key, b"value", headers)
        found = read(bytes(builder.build()))
        assert [(record[2], record[3][0], record[3][-1]) for record in found] == [(b"value", small, small)] * 3
        assert all(len(record[1]) <= bus_records.MOST_KEY and len(str(record[3])) < 1000 for record in found)
