"""Who may see what, recomputed from what was published and who people are, by nothing of the product."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Audience(NamedTuple):
    """Segments and groups by name; empty is everybody."""

    any_of: frozenset[str] = frozenset()
    all_of: frozenset[str] = frozenset()
    none_of: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def takes(self, view: View) -> bool:
        """Whether somebody belongs to it. Who is not known to be out of a segment does not."""
        inside, undefined = view.segments, view.undefined
        return (
            (not self.any_of or bool(self.any_of & inside))
            and self.all_of <= inside
            and not self.none_of & (inside | undefined)
            and (not self.groups or view.group in self.groups)
        )


class Shown(NamedTuple):
    """A block or a rule: the word by which it is known in an answer."""

    word: str
    audience: Audience = Audience()
    slots: frozenset[str] = frozenset()
    priority: int = 0
    ends_at_ms: int | None = None
    live: bool = True


class View(NamedTuple):
    """What is known of somebody, in one request: `undefined` are segments that are named and not there.

    `customer`: whether somebody who comes with a visitor cookie has been seen to be one.
    """

    segments: frozenset[str]
    group: str = "guest"
    undefined: frozenset[str] = frozenset()
    customer: bool = False


@dataclass(frozen=True)
class State:
    """Everything published. `conditions` are the request-dependent segments: the fact that must have this value."""

    blocks: Mapping[str, Shown] = field(default_factory=dict)
    rules: Mapping[str, Shown] = field(default_factory=dict)
    kills: frozenset[str] = frozenset()


class Answer(NamedTuple):
    """Words per slot, strongest first (empty: the default), and labels of promotions."""

    slots: tuple[tuple[str, tuple[str, ...]], ...]
    labels: frozenset[str]


def alive(found: Mapping[str, Shown], kind: str, kills: Iterable[str], at_ms: int) -> Iterator[tuple[str, Shown]]:
    """What is live at an instant and not killed, strongest first."""
    for key, one in sorted(found.items(), key=lambda item: (item[1].priority, item[0])):
        over = one.ends_at_ms is not None and at_ms >= one.ends_at_ms
        if one.live and not over and f"{kind}:{key}" not in kills:
            yield key, one


def answer(state: State, view: View, slots: Iterable[str], at_ms: int) -> Answer:
    """What somebody sees; every slot shows one block."""
    said = []
    for slot in sorted(slots):
        words = [
            one.word
            for _, one in alive(state.blocks, "block", state.kills, at_ms)
            if slot in one.slots and one.audience.takes(view)
        ]
        said.append((slot, () if f"slot:{slot}" in state.kills else tuple(words[:1])))
    labels = (one.word for _, one in alive(state.rules, "rule", state.kills, at_ms) if one.audience.takes(view))
    return Answer(tuple(said), frozenset(labels))


class Lasting(NamedTuple, Generic[T]):
    """A value that may have held from `began_s` (its change was asked for) to `ended_s` (the next one had been answered)."""

    value: T
    began_s: float
    ended_s: float


class History(Generic[T]):
    """What held when, as far as whoever asks from outside can say."""

    def __init__(self, value: T, now_s: float) -> None:
        self._past: list[Lasting[T]] = []
        self._value, self._began_s = value, now_s

    @property
    def value(self) -> T:
        """What holds now."""
        return self._value

    def change(self, value: T, *, asked_s: float, answered_s: float) -> None:
        """Another value holds from some moment between the two."""
        self._past.append(Lasting(self._value, self._began_s, answered_s))
        self._value, self._began_s = value, asked_s

    def during(self, since_s: float, until_s: float) -> list[T]:
        """All that may have held at some moment between the two."""
        found = [one.value for one in self._past if one.ended_s >= since_s and one.began_s <= until_s]
        return [*found, self._value] if self._began_s <= until_s else found
