"""How large the answer of a slot can get. What is too large for the time a page has would never be shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from content_svc.domain.select import Slot, shown_at_once

MOST_BYTES = 256 * 1024


def default_bytes(slot: Slot) -> int:
    """The default of a slot in its largest locale, encoded."""
    return _largest(slot.default)


def blocks_bytes(slot: Slot, of: Collection[str]) -> int:
    """As many of the largest blocks as a slot shows at once on a website, each in its largest locale, encoded, whoever they are
    for: on that of these websites (none: of all) where it is most."""
    sizes = [(b.websites, _largest(b.content)) for b in slot.blocks]
    everywhere = [size for websites, size in sizes if not websites]
    named = set(of) or {website for websites, _ in sizes for website in websites}
    there = [everywhere, *(everywhere + [size for websites, size in sizes if w in websites] for w in named)]
    return max(sum(sorted(found, reverse=True)[: shown_at_once(slot)]) for found in there)


def _largest(content: Mapping[str, Any]) -> int:
    return max((len(msgspec.json.encode(one)) for one in content.values()), default=0)
