"""What an edge still has to forget. A debt stays until that edge has answered, whatever else becomes of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from gateway.domain.tags import ALL, MOST_LINE, published

AGAIN_S = 1.25  # after a publication: an answer of before it is on its way no longer
LATE_MS = 300_000  # in which a gateway that died is replaced


class Debt(NamedTuple):
    """Tags to purge, not before a moment (seconds of the loop). `hard`: what is purged is not shown once more either."""

    tags: frozenset[str]
    hard: bool
    due_s: float


def debts_of(said: Mapping[str, Any], since: int | None, websites: Collection[str], now_s: float) -> list[Debt]:
    """What became owed by the versions after `since`, now and again after AGAIN_S; everything, when that is not known.

    `websites` are all there are.
    """
    changes = [c for c in said["changes"] if since is not None and c["version"] > since]
    if since is None or since > said["version"] or len(changes) < said["version"] - max(since, 1):
        return [Debt(frozenset([ALL]), True, due) for due in (now_s, now_s + AGAIN_S)]
    found = []
    for hard in (True, False):
        tags = frozenset().union(*(published(c, websites) for c in changes if c.get("hard", True) is hard))
        found += [Debt(tags, hard, due) for due in (now_s, now_s + AGAIN_S) if tags]
    return found


def debts_at_least(said: Mapping[str, Any], websites: Collection[str], now_s: float, now_ms: int) -> list[Debt]:
    """What is owed while nobody can say what was purged before, and there may be nothing to show instead: what ended or was
    replaced in LATE_MS, which a gateway may have died owing, is not shown any more; all else is asked for anew.
    """
    late = (c for c in said["changes"] if c.get("hard", True) and now_ms - c.get("at", now_ms) < LATE_MS)
    tags = frozenset[str]().union(*(published(c, websites) for c in late))
    hard = [Debt(tags, True, due) for due in (now_s, now_s + AGAIN_S) if tags]
    return [*hard, Debt(frozenset([ALL]), False, now_s)]


def lines(debts: Iterable[Debt], now_s: float) -> list[tuple[bool, str]]:
    """(hard, tags) of what is due, as few requests as there can be; what is hard first."""
    due = [debt for debt in debts if debt.due_s <= now_s]
    found = []
    for hard in (True, False):
        tags = sorted({tag for debt in due if debt.hard is hard for tag in debt.tags})
        line = " ".join(tags)
        if tags:
            found.append((hard, ALL if ALL in tags or len(line) > MOST_LINE else line))
    return found
