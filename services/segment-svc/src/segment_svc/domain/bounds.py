"""How much of a person is kept, so that a row is as large as what was done, not as what was sent."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from segment_svc.domain.activity import Activity
from segment_svc.domain.log import Log

LIMIT = 200
MOST_BYTES, MOST_CUSTOM_BYTES, MOST_CUSTOM = 128 * 1024, 32 * 1024, 50
CUSTOM, UNBOUNDED = "custom.", ("order_placed",)  # an order comes from a server, and is kept whatever its size
REGISTER_LIMIT = 8
MOST_NAMES = {"attributes": 500, "purposes": 50, "group": 1}


def over(kind: str, log: Log) -> int:
    """How many of the oldest events of a type are too many; the newest one never is."""
    found = max(0, len(log) - LIMIT)
    left = MOST_CUSTOM_BYTES if kind.startswith(CUSTOM) else MOST_BYTES
    sizes = list(map(len, log.props))
    if kind in UNBOUNDED or sum(sizes) <= left:
        return found
    for place in range(len(log) - 1, found - 1, -1):
        left -= sizes[place]
        if left < 0:
            return min(place + 1, len(log) - 1)
    return found


def waits_in_vain(pending: Sequence[Activity], activity: Activity) -> bool:
    """Whether as much waits for its time as may: by number, and, of what a browser may send, by bytes."""
    waiting = [len(one.props) for one in pending if one.type not in UNBOUNDED]
    large = activity.type not in UNBOUNDED and sum(waiting) + len(activity.props) > MOST_BYTES
    return len(pending) >= LIMIT or (large and bool(waiting))


def is_one_too_many(kind: str, known: Collection[str]) -> bool:
    """Whether a type of events is one of a shop's own beyond those that may be known of a person."""
    return kind.startswith(CUSTOM) and kind not in known and sum(x.startswith(CUSTOM) for x in known) >= MOST_CUSTOM
