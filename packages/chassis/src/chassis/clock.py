"""Time as a dependency: epoch milliseconds, UTC."""

from __future__ import annotations

import time
from typing import Protocol

SKEW_MS = 5000  # by how much the clocks of machines may differ


class Clock(Protocol):
    """Anything that says what time it is."""

    def now_ms(self) -> int:
        """Epoch milliseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Epoch milliseconds."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, now_ms: int) -> None:
        self._now = now_ms

    def now_ms(self) -> int:
        """Epoch milliseconds."""
        return self._now

    def set(self, now_ms: int) -> None:
        """Move to an instant."""
        self._now = now_ms

    def advance(self, ms: int) -> None:
        """Move forward."""
        self._now += ms
