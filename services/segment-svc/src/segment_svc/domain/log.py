"""What one person did of one type, in columns: numbers are stored packed, properties are decoded only when asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    Longs = array[int]
else:
    Longs = array  # msgspec reads the annotations, and an array cannot be subscripted there

Entry = tuple[int, int, int, bytes]


def longs(initial: bytes | Iterable[int] = b"") -> Longs:
    """Signed 64-bit numbers, of packed bytes or of numbers."""
    return array("q", initial)


class Log(msgspec.Struct, array_like=True):
    """Entries ascending by (at, id). `at`: epoch ms. `sites`: numbers of websites. `props`: as in Activity, one each."""

    at: Longs
    ids: Longs
    sites: list[int]
    props: list[bytes]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Log:
        """A log of entries that are in order."""
        at, ids, sites, props = list(zip(*entries, strict=True)) or ((), (), (), ())
        return cls(longs(at), longs(ids), list(sites), list(props))

    def __len__(self) -> int:
        return len(self.at)

    def entries(self) -> Iterator[Entry]:
        """Every entry, oldest first."""
        return zip(self.at, self.ids, self.sites, self.props, strict=True)

    def insert(self, at: int, id_hash: int, site: int, props: bytes) -> int:
        """Put an entry in its place; answers where that is."""
        place = len(self.at)
        if place and (at, id_hash) < (self.at[-1], self.ids[-1]):
            place = bisect_left(self.at, at)
            while self.at[place] == at and self.ids[place] < id_hash:
                place += 1
        self.at.insert(place, at)
        self.ids.insert(place, id_hash)
        self.sites.insert(place, site)
        self.props.insert(place, props)
        return place

    def trim(self, count: int) -> None:
        """Forget the oldest entries."""
        for column in (self.at, self.ids, self.sites, self.props):
            del column[:count]
