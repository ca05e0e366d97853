"""How much content there may be. A content-svc that is as full as it can be has to live in 256 MiB (deploy/k8s).

It takes 110 MiB with nothing in it. What is live takes at most four times what it counts with, when each text has one character
beyond 16 bits: 4 * (16 + 2) MiB = 72 MiB, and 4 * 4 MiB for the versions before it (`chassis.snapshot.KEPT_BYTES`): 198 MiB.
The rest is for what is being read and asked. Slots go to every gateway whole with every release, and so does whom blocks are for,
once for each of their slots, which counts twice: JSON of 1/2 + 4/2 MiB of a website, 2 + 16/2 MiB at the very most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chassis.quota import Quota, size, text_of

from content_svc.snapshot import BLOCK, SLOT, places

KIB = 1024


def block_bytes(body: Mapping[str, Any]) -> int:
    """What a block counts with: whom it is for, and its locales, twice more for each of its slots: gateways are told them so."""
    content = body.get("content")
    said = [body.get("websites"), body.get("audience"), list(content) if isinstance(content, dict) else []]
    return size(body) + 2 * len(places(body)) * len(text_of(said).encode())


QUOTAS = {
    BLOCK: Quota(BLOCK, 256 * KIB, 4096 * KIB, 16384 * KIB, "/content", block_bytes),
    SLOT: Quota(SLOT, 64 * KIB, 512 * KIB, 2048 * KIB, "/default"),
}
