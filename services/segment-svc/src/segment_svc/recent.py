"""Rows as last committed, of the people who were active last: they need not be read, decoded and evaluated again whole.

A row is right as long as its version is the one in PostgreSQL, which load compares under the lock. It is taken out to
be worked on and put back after the commit, so what a failed transaction did to it is gone with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_svc.store import Row

MOST_BYTES = 32 * 1024 * 1024


class Recent:
    """At most `most_bytes` of stored state (in memory a few times that), the longest untouched going first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._rows: dict[str, Row] = {}

    def take(self, key: str) -> Row | None:
        """The row of a key, which is the caller's from now on."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._bytes -= row.size
        return row

    def put(self, rows: Iterable[Row]) -> None:
        """Keep rows as they were committed."""
        for row in rows:
            self.take(row.key)
            self._rows[row.key] = row
            self._bytes += row.size
        while self._bytes > self._most_bytes:
            self.take(next(iter(self._rows)))
