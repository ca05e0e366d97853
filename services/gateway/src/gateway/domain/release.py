"""A release: one version of everything published, seen whole. What is made from it lives as long as it does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from gateway.domain import targeting
from gateway.domain.answer import Answer
from gateway.domain.dimensions import Dimension, Seen, codes
from gateway.domain.kept import Kept
from gateway.domain.targeting import (
    Definitions,
    Plan,
    audiences,
    codes_of,
    definitions_of,
    everything,
    nobodys,
    resolved,
)

MOST_PLANS, MOST_ANSWERS = 16 << 20, 64 << 20  # bytes
MOST_GROUPS, MOST_SAID = 1000, 3000  # a cookie has 4096 bytes
KINDS = ("segment", "content", "promo")
OF_SEGMENTS, OF_CONTENT, OF_PROMO = range(len(KINDS))
NO_SEGMENTS = {"version": 0, "empty": {"visitor": "", "customer": ""}, "segments": [], "changes": []}
NO_CONTENT: dict[str, Any] = {"version": 0, "slots": {}, "changes": []}
NO_PROMO: dict[str, Any] = {"version": 0, "rules": [], "segments": [], "changes": []}
_numbers = itertools.count()


class Visible(NamedTuple):
    """Of a website: the codes that shared answers depend on, the names of those that steer a promotion, and by group of who
    comes all codes that may be asked for as soon as something else is published."""

    codes: tuple[Dimension, ...]
    steering: frozenset[str]
    of_group: dict[str, tuple[Dimension, ...]]


@dataclass(eq=False, slots=True)
class Release:
    """The vector of versions, and all that belongs to it: plans, answers, and what is being asked (`flights`).

    `stale`: the kinds of which there has been something newer for too long, and it cannot be had: nothing of theirs is shown
    but defaults. `number` tells it from every other release of this process.
    """

    definitions: Definitions
    content: Mapping[str, Any]
    promo: Mapping[str, Any]
    stale: frozenset[int] = frozenset()
    number: int = field(default_factory=lambda: next(_numbers))
    plans: Kept[Any, Plan] = field(default_factory=lambda: Kept(MOST_PLANS))
    answers: Kept[Any, Answer] = field(default_factory=lambda: Kept(MOST_ANSWERS))
    flights: dict[Any, Any] = field(default_factory=dict)
    _visible: dict[str, Visible] = field(default_factory=dict)

    @property
    def versions(self) -> tuple[int, int, int]:
        """Of definitions, content and promotions; 0 before any is known."""
        return self.definitions.version, self.content["version"], self.promo["version"]

    @property
    def withheld(self) -> bool:
        """Whether of no segment anybody is known to be in or out, see `nobodys`."""
        return OF_SEGMENTS in self.stale

    def anew(self, *, without: Collection[int] = ()) -> Release:
        """The same, with nothing made from it yet, and nothing of some kinds shown."""
        known = nobodys(self.definitions) if OF_SEGMENTS in without else self.definitions
        return Release(known, self.content, self.promo, self.stale.union(without))

    def visible(self, website: str) -> Visible:
        """What shared answers of a website can depend on."""
        found = self._visible.get(website)
        if found is None:
            shown, rules = audiences(self.content["slots"].values(), website), self.promo["rules"]
            found = self._visible[website] = Visible(
                codes_of(self.definitions, website, [*shown, *rules]),
                frozenset(d.name for d in codes_of(self.definitions, website, rules)),
                {},
            )
        return found

    def codes(self, website: str, seen: Seen) -> str:
        """What a context cookie says of somebody; when that is very much, only what is asked for today."""
        visible = self.visible(website)
        if seen.group not in visible.of_group and len(visible.of_group) < MOST_GROUPS:
            visible.of_group[seen.group] = everything(self.definitions, website, seen.group)
        said = codes(visible.of_group.get(seen.group, visible.codes), seen)
        return said if len(said) <= MOST_SAID else codes(visible.codes, seen)

    def plan(self, website: str, slots: Sequence[str], locale: str) -> Plan:
        """The plan of a kind of request, made once for the slots that there are, and the locales they have."""
        there, said = tuple(s for s in slots if s in self.content["slots"]), locale
        locale = resolved(locale, {name for s in there for name in self.content["slots"][s]["locales"]})
        key = (website, there, locale)
        found = self.plans.get(key)
        if found is None:
            found = targeting.plan(
                self.definitions, self.content, self.promo, website=website, slots=there, locale=locale,
                release=self.number,
            )  # fmt: skip
            self.plans.put(key, found, found.size)
        if found.by_locale:  # the answer is remembered by what follows from it, which is in or out
            found = replace(found, said=said)
        if len(there) < len(slots):
            found = replace(found, unknown=tuple(s for s in slots if s not in self.content["slots"]))
        return found


def release_of(
    definitions: Mapping[str, Any], content: Mapping[str, Any], promo: Mapping[str, Any], stale: Collection[int] = ()
) -> Release:
    """From what the three services say of themselves."""
    return Release(definitions_of(definitions), content, promo).anew(without=stale)


def needs(said: Mapping[str, Any], since: int) -> float:
    """The version of the segment definitions without which what a service says of itself is not to be followed; of what it
    published after `since`. Infinity, whichever is the newest, where nobody could say when it was saved.
    """
    asked = [change.get("needs") for change in said["changes"] if change["version"] > since]
    return max((math.inf if version is None else version for version in asked), default=0)
