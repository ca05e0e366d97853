"""One thing a person did, as the domain sees it."""

from __future__ import annotations

from typing import Any

import msgspec


class Activity(msgspec.Struct, frozen=True, array_like=True):
    """`id_hash`: 64 bits of source and event id. `at`: when it happened, epoch ms. Amounts in `props` are decimals."""

    id_hash: int
    type: str
    at: int
    website: str
    props: dict[str, Any]
