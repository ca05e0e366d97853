"""A few places for what may take long. Whoever finds none is told at once, so that nobody else waits for a connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chassis.problems import Problem

MOST_OF_A_KEY, MOST = 2, 4  # far fewer than there are connections


class Places:
    """Who has how many of them now."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()

    @contextmanager
    def one(self, key: str) -> Iterator[None]:
        """A place for who has this key. Raises Problem 503 busy."""
        if self.taken[key] >= MOST_OF_A_KEY or self.taken.total() >= MOST:
            raise Problem(
                "busy", 503, "Too much that takes long is being done; try again", headers={"retry-after": "2"}
            )
        self.taken[key] += 1
        try:
            yield
        finally:
            self.taken[key] -= 1
