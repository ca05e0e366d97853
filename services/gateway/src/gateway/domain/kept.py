"""What is remembered for a while, bounded by bytes and not by number: callers choose how large one is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key, of at most `most` bytes together; what was put in longest ago goes first."""

    def __init__(self, most: int) -> None:
        self._most, self.size = most, 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._sizes: dict[K, int] = {}
        self.get: Callable[[K], V | None] = self._values.get  # the value, unless it is gone; asked for by every request

    def __len__(self) -> int:
        return len(self._values)

    def drop(self, key: K) -> None:
        """Forget one."""
        self._values.pop(key, None)
        self.size -= self._sizes.pop(key, 0)

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()
        self._sizes.clear()
        self.size = 0

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value in place of the one there was; `size` is what it takes, in bytes, its key included."""
        if key in self._sizes:
            self.drop(key)
        self._values[key], self._sizes[key] = value, size
        self.size += size
        while self.size > self._most:
            oldest, _ = self._values.popitem(last=False)
            self.size -= self._sizes.pop(oldest)
