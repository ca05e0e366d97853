"""Records as they lie in a fetched batch, one that the client cannot read among them.

aiokafka gives a whole batch up when the name of one header is no UTF-8, or a record is torn: everything after it in the
batch would be lost. `install` puts a reader in its place that reads such a batch again, record by record: one that cannot
be read keeps what can (key and value, no headers), or is an empty hole, so that its offset is there. What is compressed is
unpacked here, up to MOST_UNPACKED, for a few kilobytes may be many gigabytes. Of the client's inside this uses what every
batch has (its version is pinned); docs/decisions/0009.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

from chassis.bus import header_size
from chassis.telemetry import get_logger

OVERHEAD = struct.Struct(">qi")  # base offset and length stand before a batch
HEADER, LENGTH, ATTRIBUTES = _DefaultRecordBatchPy.HEADER_STRUCT, 1, 5
CODEC, SNAPPY = _DefaultRecordBatchPy.CODEC_MASK, _DefaultRecordBatchPy.CODEC_SNAPPY
UNPACK = {1: cramjam.gzip.decompress_into, 3: cramjam.lz4.decompress_into, 4: cramjam.zstd.decompress_into}
MOST_UNPACKED, MOST_VALUE, MOST_KEY, USUAL_ROOM = 64 << 20, 512 * 1024, 64 * 1024, 256 * 1024
log = get_logger("bus")


def install() -> None:
    """Have the client's consumers read with this."""
    fetcher.MemoryRecords = _Records


class _Records:
    """The batches of a fetch."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._inner = data, 0, MemoryRecords(data)

    def size_in_bytes(self) -> int:
        return int(self._inner.size_in_bytes())

    def has_next(self) -> bool:
        return bool(self._inner.has_next())

    def next_batch(self) -> Any:
        batch, begun = self._inner.next_batch(), self._at
        self._at += OVERHEAD.size + OVERHEAD.unpack_from(self._data, begun)[1]
        return _Batch(batch, self._data, slice(begun, self._at)) if isinstance(batch, DefaultRecordBatch) else batch


class _Batch:
    """A batch of the client's; iterating over it does not fail."""

    def __init__(self, inner: Any, data: bytes, place: slice) -> None:
        self._inner, self._data, self._place = inner, data, place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __next__(self) -> Any:
        return next(self._inner)  # the first record of a batch of control

    def __iter__(self) -> Iterator[Any]:
        inner, data, count = self._inner, bytes(self._data[self._place]), 0
        try:
            if inner.compression_type:
                data = unpacked(data)
                inner = DefaultRecordBatch(data)
        except Exception as error:
            log.error("bus_record_unreadable", offset=inner.base_offset, error=type(error).__name__)
            yield from _holes(_DefaultRecordBatchPy(data), 0)
            return
        try:
            for record in inner:
                yield _cut(record) if inner is not self._inner and weight(record) > MOST_VALUE else record
                count += 1
        except Exception as error:
            log.error("bus_record_unreadable", offset=inner.base_offset + count, error=type(error).__name__)
            yield from islice(_again(data), count, None)


def weight(record: Any) -> int:
    """Bytes that a record holds."""
    return len(record.key or b"") + len(record.value or b"") + sum(header_size(*header) for header in record.headers)


def _cut(record: Any) -> _DefaultRecordPy:
    """An unpacked record that is larger than any that is of use, and may be than a broker takes: its beginning."""
    key, value = record.key and record.key[:MOST_KEY], record.value and record.value[:MOST_VALUE]
    headers, left = [], MOST_KEY
    for header in record.headers:
        left -= header_size(*header)
        if left >= 0:
            headers.append(header)
    return _DefaultRecordPy(record.offset, record.timestamp, record.timestamp_type, key, value, headers)


class TooLarge(Exception):
    """A batch unpacks to more than MOST_UNPACKED."""


def unpacked(data: bytes) -> bytes:
    """A compressed batch as it is without. Raises TooLarge, or whatever the codec does."""
    head = list(HEADER.unpack_from(data))
    codec, packed = head[ATTRIBUTES] & CODEC, data[HEADER.size :]
    body = _snappy(packed) if codec == SNAPPY else _into_room(UNPACK[codec], packed)
    head[LENGTH], head[ATTRIBUTES] = HEADER.size - OVERHEAD.size + len(body), head[ATTRIBUTES] & ~CODEC
    return bytes(HEADER.pack(*head)) + body


def _into_room(unpack: Any, packed: bytes) -> bytes:
    """A codec that writes into room it is given: usually little is enough, and much is dear to make."""
    for most in (min(max(USUAL_ROOM, 16 * len(packed)), MOST_UNPACKED), MOST_UNPACKED):
        room = bytearray(most)
        with contextlib.suppress(cramjam.DecompressionError):
            return bytes(memoryview(room)[: unpack(packed, room)])
    raise TooLarge


def _snappy(packed: bytes) -> bytes:
    """One block, or blocks with their lengths after the header that Java's library writes."""
    blocks, at = [packed], 16
    if packed.startswith(b"\x82SNAPPY\0"):
        blocks = []
        while at < len(packed):
            end = at + 4 + int.from_bytes(packed[at : at + 4], "big")
            blocks.append(packed[at + 4 : end])
            at = max(end, at + 4)
    if sum(cramjam.snappy.decompress_raw_len(block) for block in blocks) > MOST_UNPACKED:
        raise TooLarge
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


def _again(data: bytes) -> Iterator[_DefaultRecordPy]:
    """Every record of a batch, as far as it can be read; holes where nothing can."""
    batch, reached = _Torn(data), 0
    try:
        for record in batch:
            yield record
            reached = record.offset - batch.base_offset + 1
    except Exception:
        yield from _holes(batch, reached)


def _holes(batch: Any, reached: int) -> Iterator[_DefaultRecordPy]:
    for delta in range(reached, batch.last_offset_delta + 1):
        yield _DefaultRecordPy(batch.base_offset + delta, batch.max_timestamp, batch.timestamp_type, None, None, [])


class _Torn(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch of which one record may be wrong: its length says where the next one begins."""

    _pos: int

    def __next__(self) -> _DefaultRecordPy:
        begun = self._pos
        try:
            return super().__next__()
        except StopIteration:
            raise
        except Exception:
            length, start = decode_varint(self._buffer, begun)
            if not 0 < length <= len(self._buffer) - start:
                raise
            self._pos = start + length
            self._next_record_index += 1
            return self._kept(start)

    def _kept(self, start: int) -> _DefaultRecordPy:
        """Key and value of a record whose headers cannot be read. Raises for one that is torn before them."""
        _, at = decode_varint(self._buffer, start + 1)
        delta, at = decode_varint(self._buffer, at)
        parts: list[bytes | None] = []
        for _ in ("key", "value"):
            length, at = decode_varint(self._buffer, at)
            parts.append(bytes(self._buffer[at : at + length]) if length >= 0 else None)
            at += max(0, length)
        offset, key, value = self.base_offset + delta, *parts
        return _DefaultRecordPy(offset, self.max_timestamp, self.timestamp_type, key, value, [])
