"""Where a person stands with segments, from their document and the request: in, out, or nobody can say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from conditions import Node, holds

from gateway.domain.targeting import Definitions, SegmentRef


class Facts:
    """Atoms of a person and the context of a request."""

    __slots__ = ("atoms", "bits", "context")

    def __init__(self, atoms: int, context: Mapping[str, Any]) -> None:
        self.atoms, self.context, self.bits = atoms, context, 0


class Late(NamedTuple):
    """Bits, by segment id, of request-dependent segments: that hold, and of which nobody can say, because they raise."""

    held: int
    unknown: int = 0


NONE_LATE = Late(0)


class Standing(NamedTuple):
    """Keys of the segments a person is in, and of those of which nobody can say: neither in nor out."""

    inside: list[str]
    unknown: list[str]


def late_bits(
    definitions: Definitions, refs: Iterable[SegmentRef], atoms: int, context: Mapping[str, Any], now_ms: int
) -> Late:
    """The request-dependent segments among `refs` that hold for a request."""
    wanted = sum(1 << r.id for r in refs)
    if not wanted:
        return NONE_LATE
    facts = Facts(atoms, context)
    try:
        return Late(definitions.decide(facts, now_ms)[0] & wanted)
    except Exception:
        judged = [(bit, _holds(node, facts, now_ms)) for bit, node in definitions.late if wanted >> bit & 1]
        held, unknown = (sum(1 << bit for bit, holds in judged if holds is said) for said in (True, None))
        return Late(held, unknown)


def _holds(node: Node, facts: Facts, now_ms: int) -> bool | None:
    try:
        return holds(node, facts, now_ms)
    except Exception:
        return None


def standing(refs: Iterable[SegmentRef], undefined: Iterable[str], atoms: int, late: Late, *, epoch: int) -> Standing:
    """Where a person stands with segments. `epoch`: of the person's document; of what has a later one it says nothing."""
    inside, unknown = [], set(undefined)
    for r in refs:
        if (late.unknown >> r.id & 1 if r.atom is None else False) or (r.personal and epoch < r.epoch):
            unknown.add(r.key)
        elif (late.held >> r.id if r.atom is None else atoms >> r.atom) & 1:
            inside.append(r.key)
    return Standing(inside, sorted(unknown))
