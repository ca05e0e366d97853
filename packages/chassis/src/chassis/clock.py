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

    def ahead_of(self, other_ms: int) -> int:
        """By how many milliseconds it is ahead of another clock, of which this was read a moment ago; negative when behind."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Epoch milliseconds."""
        return time.time_ns() // 1_000_000

    def ahead_of(self, other_ms: int) -> int:
        """By how many milliseconds it is ahead."""
        return self.now_ms() - other_ms


class ManualClock:
    """A clock that moves only when told to, and is right whatever others say."""

    def __init__(self, now_ms: int) -> None:
        self._now = now_ms

    def now_ms(self) -> int:
        """Epoch milliseconds."""
        return self._now

    def ahead_of(self, other_ms: int) -> int:
        """None is ahead or behind."""
        return 0

    def set(self, now_ms: int) -> None:
        """Move to an instant."""
        self._now = now_ms

    def advance(self, ms: int) -> None:
        """Move forward."""
        self._now += ms
