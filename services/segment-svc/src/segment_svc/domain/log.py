"""What one person did of one type, in columns: numbers are stored packed, properties are decoded only when asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(dict[str, Any]).decode
Entry = tuple[int, int, int, msgspec.Raw]


class Longs(array):  # type: ignore[type-arg]
    """Signed 64-bit numbers."""

    def __new__(cls, initial: bytes | Iterable[int] = b"") -> Longs:
        """Of packed bytes, or of numbers."""
        return super().__new__(cls, "q", initial)  # type: ignore[return-value]


class Log(msgspec.Struct, array_like=True):
    """Entries ascending by (at, id). `at`: epoch ms. `sites`: numbers of websites. `props`: MessagePack, one each."""

    at: Longs
    ids: Longs
    sites: Longs
    props: list[msgspec.Raw]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Log:
        """A log of entries that are in order."""
        at, ids, sites, props = list(zip(*entries, strict=True)) or ((), (), (), ())
        return cls(Longs(at), Longs(ids), Longs(sites), list(props))

    def __len__(self) -> int:
        return len(self.at)

    def entries(self) -> Iterator[Entry]:
        """Every entry, oldest first."""
        return zip(self.at, self.ids, self.sites, self.props, strict=True)

    def insert(self, at: int, id_hash: int, site: int, props: msgspec.Raw) -> int:
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


def pack(props: dict[str, Any]) -> msgspec.Raw:
    """Properties as a log keeps them."""
    return msgspec.Raw(_pack(props))


def unpack(props: msgspec.Raw) -> dict[str, Any]:
    """Properties as they came."""
    return _unpack(props)
