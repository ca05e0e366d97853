"""The audience document: what a reader needs to know about one person, in Valkey under `aud:<identity>`.

There it stands after an 8-byte big-endian version (chassis.cache), whose first two bytes are its era: what a database wrote that
went back since is of an era before. Under MARK stands the era for which all documents are there. segment-svc writes, the gateway
reads.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FORMAT: Literal[1] = 1
VERSION_BYTES, ERA_BYTES = 8, 2
MARK = "aud:complete"  # `<era> <run>`: see chassis.cache.run_of


class Audience(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A MessagePack array. `bits` are the atom bitset, little-endian; `flips` its coming changes [[epoch ms, bits]...],
    ascending, as far as nothing else happens until `covered_until` (epoch ms, None for ever).

    `epoch`: atom numbers mean what they mean in segments of this epoch or before; of a later one's the document says nothing.
    """

    format: Literal[1]
    epoch: int
    bits: bytes
    flips: tuple[tuple[int, bytes], ...]
    group: str
    consent: int
    covered_until: int | None
    customer: bool

    def bits_at(self, now_ms: int) -> int:
        """The bits at this instant: coming flips that fell due count, although nobody rewrote the document."""
        bits = self.bits
        for at, after in self.flips:
            if at > now_ms:
                break
            bits = after
        return int.from_bytes(bits, "little")

    def next_change(self, now_ms: int) -> int | None:
        """The next instant (epoch ms) at which the document itself says that something changes."""
        if not self.flips:
            return self.covered_until
        return next((at for at, _ in self.flips if at > now_ms), self.covered_until)


def dated(era: int, version: int) -> int:
    """The version under which a document is stored."""
    return era << 8 * (VERSION_BYTES - ERA_BYTES) | version


def era_of(stored: bytes) -> int:
    """Of what stands in Valkey."""
    return int.from_bytes(stored[:ERA_BYTES])


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Audience).decode
"""Raises msgspec.DecodeError for anything else, another format too."""
