"""The audience document: what a reader needs to know about one person, as bytes.

MessagePack array [bits, flips, group, consent, covered_until, customer]: `bits` are little-endian bytes of the atom
bitset, `flips` the coming changes [[epoch ms, bits]...] ascending, valid until `covered_until` (epoch ms or nil).
"""

from __future__ import annotations

import msgspec


class Document(msgspec.Struct, array_like=True, frozen=True):
    """See the module; the version a reader compares stands outside, in front of these bytes."""

    bits: bytes
    flips: list[tuple[int, bytes]]
    group: str
    consent: int
    covered_until: int | None
    customer: bool


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Document).decode
