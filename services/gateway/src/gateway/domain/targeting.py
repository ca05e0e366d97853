"""What decides a request, as of one version of everything: from a person's document to the segments that matter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conditions import Invalid, Node, Vocabulary, compile_set, leaves, parse
from conditions.context import IN_THE_URL, SAID_BY_ANYBODY, Atom, Context

from gateway.domain import dimensions
from gateway.domain.dimensions import CLOCK, Dimension, Place

VOCABULARY = Vocabulary([Atom(), Context()])
NOTHING_SAID, LOGIN_SAID = -2, -1  # epochs where no document can be had: of a visitor, of who is logged in
MOST_SLOTS, MOST_SLOT, MOST_LOCALE = 20, 63, 10
SLOTS = f"names up to {MOST_SLOTS} slots, each of 1 to {MOST_SLOT} characters"


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """A segment: `atom` when its membership is one bit of the person, else `bit`, which it has among the request-dependent ones.

    `depends_on`: what of a request its membership depends on; `by_the_hour`: whether it may change with the hour; `by_locale`:
    whether it depends on the locale asked for; `by_anybody`: whether on what a page says of itself. `epoch`: of the earliest
    document that says enough of somebody; LOGIN_SAID where it is enough to know who is logged in, NOTHING_SAID for what nobody's
    is asked. `since`: the version of the definitions with which it got its codes.
    """

    bit: int
    key: str
    websites: tuple[str, ...]
    atom: int | None
    depends_on: tuple[Dimension, ...]
    by_the_hour: bool = False
    by_locale: bool = False
    by_anybody: bool = False
    epoch: int = 0
    since: int = 0


@dataclass(slots=True)
class Definitions:
    """Segments of one release. `decide` gives the bits (by segment id) of those that need the request.

    `empty`, `empty_customer`: the bits of a visitor, and of a customer, of whom nothing is known.
    `unreadable`: keys of those this version of the gateway cannot read. Of them nobody is known to be in or out. Version 0 is of
    none that were ever published.
    """

    version: int
    empty: int
    empty_customer: int
    segments: dict[str, SegmentRef]
    late: list[tuple[int, Node]]
    decide: Callable[[Any, int], tuple[int, int | None]]
    changes: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The earliest of which a document says everything."""
        return epoch_of(self.segments.values())

    def of(self, website: str, keys: Iterable[str]) -> list[SegmentRef]:
        """The segments of these keys that a website has."""
        refs = (self.segments[key] for key in sorted(set(keys)) if key in self.segments)
        return [ref for ref in refs if not ref.websites or website in ref.websites]

    def undefined(self, keys: Iterable[str], website: str) -> tuple[str, ...]:
        """Those of these keys that say nothing on a website: there are none, or they are of other websites."""
        named = set(keys)
        return tuple(sorted(named - {ref.key for ref in self.of(website, named)}))


def definitions_of(raw: Mapping[str, Any]) -> Definitions:
    """From the answer of segment-svc GET /v1/definitions."""
    empty, customer = (int.from_bytes(bytes.fromhex(raw["empty"][kind]), "little") for kind in ("visitor", "customer"))
    refs, late, unreadable = {}, list[tuple[int, Node]](), []
    for s in raw["segments"]:
        try:
            if s["residual"] is None and s["atom"] is not None:
                found = dimensions.ordered([dimensions.member(f"s{s['id']}", s["atom"], empty)])
                bit, names, epoch = 0, frozenset[str](), s["epoch"]
            else:
                tree = parse(s["residual"], VOCABULARY)  # of what has neither, there is none
                found, names, epoch = _asked(tree, empty, s["epoch"])
                late.append((bit := len(late), tree))
            refs[s["key"]] = SegmentRef(
                bit, s["key"], tuple(s["websites"]), s["atom"], found, not names.isdisjoint(CLOCK),
                not names.isdisjoint(IN_THE_URL), not names.isdisjoint(SAID_BY_ANYBODY), epoch, s["since"],
            )  # fmt: skip
        except (Invalid, ValueError):
            unreadable.append(s["key"])
    return Definitions(raw["version"], empty, customer, refs, late, compile_set(late), list(raw["changes"]), unreadable)


def nobodys(definitions: Definitions) -> Definitions:
    """Definitions by which nobody is known to be in a segment or out; older than any, so that nothing is taken to be theirs."""
    return Definitions(0, definitions.empty, definitions.empty_customer, {}, [], compile_set([]))


def _asked(tree: Node, empty: int, epoch: int) -> tuple[tuple[Dimension, ...], frozenset[str], int]:
    """What a tree over atoms and context depends on, the fields of a request in it, and whose document says enough."""
    found: list[Dimension] = []
    names: set[str] = set()
    for leaf in leaves(tree):
        if isinstance(leaf.type, Atom):
            found.append(dimensions.member(f"a{leaf.params}e{epoch}", leaf.params, empty))
        else:
            names.add(leaf.params[0])
    said = epoch if found else LOGIN_SAID if "logged_in" in names else NOTHING_SAID
    found += [d for d in map(dimensions.asked, sorted(names)) if d is not None]
    return dimensions.ordered(found), frozenset(names), said


@dataclass(frozen=True, slots=True)
class Plan:
    """How one kind of request (website, slots, locale) is answered, and what that depends on.

    `mask` is `dimensions.mask` of all; `bits` and `groups` are what is looked at of a person, beside `late`. `unknown` are
    slots that were asked for and are nowhere: nothing that is remembered has them in it, or in its key. `locale` is the one that
    content is found under, `said` the one that was asked for, where a segment depends on it. `undefined` are segments
    that are `named` and not defined. `since`: contexts of an earlier version of the definitions do not have all its codes.
    `epoch`: a person's document of an earlier one leaves something unsaid. `release` is the one of the gateway's knowledge it
    was made from.
    """

    website: str
    slots: tuple[str, ...]
    locale: str
    dimensions: tuple[Dimension, ...]
    mask: str
    bits: int
    groups: tuple[Dimension, ...]
    durable: tuple[SegmentRef, ...]
    late: tuple[SegmentRef, ...]
    boundaries: tuple[int, ...]
    by_the_hour: bool
    said: str = "*"
    unknown: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    since: int = 0
    epoch: int = 0
    release: int = 0

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        parts = len(self.dimensions) + len(self.durable) + len(self.late) + len(self.boundaries)
        return 2000 + 32 * parts + 150 * len(self.unknown)

    @property
    def tags(self) -> list[str]:
        """What makes an edge forget its answers, whatever they turn out to be made of."""
        return ["promo", *(f"slot:{key}" for key in self.slots), *(f"segment:{key}" for key in self.named)]

    @property
    def by_locale(self) -> bool:
        """Whether a segment depends on the locale asked for."""
        return any(ref.by_locale for ref in self.late)

    @property
    def keyed(self) -> bool:
        """Whether an edge can tell all that it depends on."""
        return dimensions.keyed(self.dimensions)


def plan(
    definitions: Definitions, content: Mapping[str, Any], promo: Mapping[str, Any], *, website: str,
    slots: Sequence[str], locale: str, release: int,
) -> Plan:  # fmt: skip
    """Look up once what a kind of request depends on."""
    parts = [*audiences((content["slots"][s] for s in slots), website), *of_website(promo["rules"], website)]
    named = {key for part in parts for key in part["segments"]}
    refs = definitions.of(website, named)
    durable, late = tuple(r for r in refs if r.atom is not None), tuple(r for r in refs if r.atom is None)
    groups = dimensions.ordered(dimensions.group(name) for part in parts for name in part["groups"])
    everything = dimensions.ordered([*groups, *(d for ref in refs for d in ref.depends_on)])
    return Plan(
        website=website,
        slots=tuple(slots),
        locale=locale,
        dimensions=everything,
        mask=dimensions.mask(everything),
        bits=sum(1 << r.atom for r in durable if r.atom is not None),
        groups=groups,
        durable=durable,
        late=late,
        boundaries=tuple(sorted({at for part in parts for at in part["boundaries"]})),
        by_the_hour=any(ref.by_the_hour for ref in late),
        undefined=definitions.undefined(named, website),
        named=tuple(sorted(named)),
        since=max((r.since for r in refs), default=0),
        epoch=epoch_of(refs),
        release=release,
    )


def epoch_of(refs: Iterable[SegmentRef]) -> int:
    """The earliest epoch of which a document says something of all these segments."""
    return max((r.epoch for r in refs if r.epoch >= 0), default=0)


def of_website(parts: Iterable[Mapping[str, Any]], website: str) -> list[Mapping[str, Any]]:
    """Those that are for a website; without any named, for all."""
    return [part for part in parts if not part["websites"] or website in part["websites"]]


def audiences(slots: Iterable[Mapping[str, Any]], website: str) -> list[Mapping[str, Any]]:
    """Whom the blocks are for that a website shows in these slots."""
    return [part for slot in of_website(slots, website) for part in of_website(slot["audiences"], website)]


def codes_of(definitions: Definitions, website: str, parts: Iterable[Mapping[str, Any]]) -> tuple[Dimension, ...]:
    """The codes that slots and rules of a website depend on."""
    seen = of_website(parts, website)
    refs = definitions.of(website, (key for part in seen for key in part["segments"]))
    found = [
        *(dimensions.group(name) for part in seen for name in part["groups"]),
        *(d for r in refs for d in r.depends_on),
    ]
    return tuple(d for d in dimensions.ordered(found) if d.place is Place.CODE)


def everything(definitions: Definitions, website: str, group: str) -> tuple[Dimension, ...]:
    """The codes that answers of a website depend on or may do so when something else is published, of one who is of a group."""
    logged_in = dimensions.asked("logged_in")
    found = [dimensions.group(group), dimensions.group(dimensions.GUEST), *([logged_in] if logged_in else [])]
    found += [d for r in definitions.of(website, definitions.segments) for d in r.depends_on]
    return tuple(d for d in dimensions.ordered(found) if d.place is Place.CODE)


def resolved(locale: str, known: Collection[str]) -> str:
    """The locale that content is found under, of those there are: itself, else its language, else `*`.

    So that nobody's inventions become keys of what is remembered.
    """
    return next((name for name in (locale, locale.split("-")[0]) if name in known), "*")


def are_slots(named: Any) -> bool:
    """Whether this is what `SLOTS` says."""
    return (
        isinstance(named, list)
        and len(named) <= MOST_SLOTS
        and all(isinstance(s, str) and 0 < len(s) <= MOST_SLOT for s in named)
    )
