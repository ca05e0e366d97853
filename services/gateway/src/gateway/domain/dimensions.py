"""What an answer can depend on: one row per dimension. The key of an answer, the mask of a URL, the codes of a context
cookie and what the edge proves are all derived from the rows here; to add a dimension is to add a row.

At the edge a CODE stands for a difference from a stranger (who has none); a FACT is a value that the edge knows of a
request (country...); what a PAGE says of itself no edge keys by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

import msgspec
from conditions.context import FACTS, IN_THE_URL, PAGE
from msgspec.structs import replace

GUEST = "guest"
OWN = "*"  # the mask of what no edge may share
MOST_CODES = 24  # as many as the edge compares
CLOCK = ("hour", "weekday")
NOTHING: Mapping[str, str] = MappingProxyType({})


class Place(Enum):
    """Where the value of a dimension is found."""

    CODE = 1
    FACT = 2
    PAGE = 3


class Seen(msgspec.Struct, frozen=True, gc=False):
    """Who asks and how. `facts` are trusted ones of FACTS; `page` is what the page says of itself, and may not be true."""

    atoms: int
    group: str = GUEST
    logged_in: bool = False
    facts: Mapping[str, str] = NOTHING
    page: Mapping[str, str] = NOTHING


@dataclass(frozen=True, slots=True)
class Dimension:
    """`name`: its code, or its field, of [a-z0-9_]. `read`: the value for a request, empty as for a stranger.

    `give`: one who is as a stranger in it, with another value. `atom`: the bit of the person it is, if it is one.
    """

    name: str
    place: Place
    read: Callable[[Seen], str] = field(compare=False)
    give: Callable[[Seen, str], Seen] = field(compare=False)
    atom: int | None = None


def member(name: str, atom: int, empty: int) -> Dimension:
    """Being in a segment, or not, unlike a stranger, whose bits are `empty`."""
    return Dimension(
        name,
        Place.CODE,
        lambda seen: "1" if (seen.atoms ^ empty) >> atom & 1 else "",
        lambda seen, _: replace(seen, atoms=seen.atoms & ~(1 << atom) | (~empty & 1 << atom)),
        atom,
    )


def group(name: str) -> Dimension:
    """Being of a customer group; for the guests' group: being of another one."""
    if name == GUEST:
        return Dimension(
            "g",
            Place.CODE,
            lambda seen: "" if seen.group == GUEST else "1",
            lambda seen, _: seen if seen.group != GUEST else replace(seen, group=""),  # of one that matters to nobody
        )
    code = "g" + hashlib.blake2b(name.encode(errors="replace"), digest_size=5).hexdigest()
    return Dimension(
        code,
        Place.CODE,
        lambda seen: "1" if seen.group == name else "",
        lambda seen, _: replace(seen, group=name),
    )


def asked(name: str) -> Dimension | None:
    """What a condition on the field `name` of a request depends on; None for what is in the URL, or a matter of time."""
    if name == "logged_in":
        return Dimension(
            "in", Place.CODE, lambda seen: "1" if seen.logged_in else "", lambda seen, _: replace(seen, logged_in=True)
        )
    if name in FACTS:
        return Dimension(
            name,
            Place.FACT,
            lambda seen: seen.facts.get(name, ""),
            lambda seen, value: replace(seen, facts={**seen.facts, name: value}),
        )
    if name in PAGE:
        return Dimension(
            name,
            Place.PAGE,
            lambda seen: seen.page.get(name, ""),
            lambda seen, value: replace(seen, page={**seen.page, name: value}),
        )
    if name in IN_THE_URL or name in CLOCK:
        return None
    raise ValueError(f"nothing is known of the field {name}")


def ordered(dimensions: Iterable[Dimension]) -> tuple[Dimension, ...]:
    """Each once: codes, then facts as in FACTS, then the page."""
    by_name = {d.name: d for d in dimensions}
    order = {name: i for i, name in enumerate((*FACTS, *PAGE), 1)}
    return tuple(sorted(by_name.values(), key=lambda d: (order.get(d.name, 0), len(d.name), d.name)))


def keyed(dimensions: Iterable[Dimension]) -> bool:
    """Whether an edge can tell all of these."""
    return all(d.place is not Place.PAGE for d in dimensions)


def mask(dimensions: Sequence[Dimension]) -> str:
    """What the edge has to key by, `.s3.g.country.`; OWN for what it cannot, with the facts in which nobody may differ from a
    stranger to get his answer: `*.country.`."""
    if not keyed(dimensions):
        return OWN
    if sum(d.place is Place.CODE for d in dimensions) > MOST_CODES:
        facts = "".join(f"{d.name}." for d in dimensions if d.place is Place.FACT)
        return f"{OWN}.{facts}" if facts else OWN
    return "." + "".join(f"{d.name}." for d in dimensions)


def audience(dimensions: Iterable[Dimension], seen: Seen) -> str:
    """The values of a request as the edge writes them: `s3.g.country=DE.`, nothing for a stranger."""
    return "".join(_said(d, value) for d in dimensions if (value := d.read(seen)))


def values(dimensions: Iterable[Dimension], seen: Seen) -> dict[str, str]:
    """The values of a request in which it differs from a stranger's, by name."""
    return {d.name: value for d in dimensions if (value := d.read(seen))}


def given(dimensions: Iterable[Dimension], stranger: Seen, values: Mapping[str, str]) -> Seen:
    """A stranger, with these values."""
    seen = stranger
    for d in dimensions:
        if value := values.get(d.name):
            seen = d.give(seen, value)
    return seen


def _said(dimension: Dimension, value: str) -> str:
    return f"{dimension.name}." if dimension.place is Place.CODE else f"{dimension.name}={value}."


def codes(dimensions: Iterable[Dimension], seen: Seen) -> str:
    """What a context cookie says: `.s3.g.`, `.` for one who is as a stranger."""
    return "." + "".join(f"{d.name}." for d in dimensions if d.place is Place.CODE and d.read(seen))


def context(seen: Seen, *, locale: str, hour: int, weekday: int) -> dict[str, Any]:
    """The fields of a request that conditions ask for."""
    return {
        **seen.page, **seen.facts, "logged_in": seen.logged_in, "locale": locale, "hour": hour, "weekday": weekday,
    }  # fmt: skip
