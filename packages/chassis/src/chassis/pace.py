"""How long to wait before the next try."""

from __future__ import annotations

import random

MOST_DOUBLINGS = 16


def pause_s(failures: int, *, base_s: float, most_s: float) -> float:
    """Seconds after so many failures in a row: doubling, bounded, and a little different for everybody."""
    longest = min(most_s, base_s * 2.0 ** min(failures, MOST_DOUBLINGS))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
