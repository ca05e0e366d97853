"""What is remembered for a while, bounded by bytes and not by number: callers choose how large one is."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key, of at most `most` bytes together; what was put in longest ago goes first."""

    def __init__(self, most: int) -> None:
        self._most, self.size = most, 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value, unless it is gone."""
        found = self._values.get(key)
        return None if found is None else found[0]

    def drop(self, key: K) -> None:
        """Forget one."""
        _, size = self._values.pop(key, (None, 0))
        self.size -= size

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()
        self.size = 0

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value in place of the one there was; `size` is what it takes, in bytes, its key included."""
        _, before = self._values.pop(key, (None, 0))
        self._values[key] = (value, size)
        self.size += size - before
        while self.size > self._most:
            _, (_, gone) = self._values.popitem(last=False)
            self.size -= gone
