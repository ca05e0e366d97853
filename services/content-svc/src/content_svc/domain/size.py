"""How large the answer of a slot can get. What is too large for the time a page has would never be shown."""

from __future__ import annotations

from collections.abc import Collection
from itertools import accumulate

from content_svc.domain.select import Slot, shown_at_once

MOST_BYTES = 256 * 1024


def blocks_bytes(slot: Slot, of: Collection[str]) -> int:
    """As many of the largest blocks as a slot shows at once on a website, each in its largest locale, encoded, whoever they are
    for: on that of these websites (none: of all) where it is most. Takes as long as the blocks name websites."""
    most, everywhere, named = shown_at_once(slot), [0], dict[str, list[int]]()
    for block in sorted(slot.blocks, key=lambda b: b.largest, reverse=True):
        for sizes in [named.setdefault(website, [0]) for website in block.websites] or [everywhere]:
            if len(sizes) <= most:
                sizes.append(block.largest)
    common = list(accumulate(everywhere))

    def there(own: list[int]) -> int:
        """The best of taking so many of its own, and the rest of those of all websites."""
        return max(taken + common[min(most - n, len(common) - 1)] for n, taken in enumerate(accumulate(own)))

    asked = named.keys() & set(of) if of else named.keys()
    return max(map(there, ([0], *(named[website] for website in asked))))
