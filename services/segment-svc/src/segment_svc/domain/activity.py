"""One thing a person did, as the domain sees it."""

from __future__ import annotations

from typing import Any

import msgspec

pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(dict[str, Any]).decode


def unpack(props: bytes) -> dict[str, Any]:
    """Properties as they came."""
    return _unpack(props)


class Activity(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`id_hash`: 64 bits of source and event id. `at`: when it happened, epoch ms. `props`: packed; amounts are decimals."""

    id_hash: int
    type: str
    at: int
    website: str
    props: bytes
