"""A person as the fold of what they did. The result does not depend on the order or repetition of events.

The state is a set of events per type, kept sorted, and registers in which the latest assignment wins. At most
LIMIT events of a type are kept; older ones are only counted, and an event older than those cannot be told from a
duplicate any more, so it is refused (TOO_OLD).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from enum import Enum
from typing import Any

import msgspec

from segment_svc.domain.activity import Activity

LIMIT = 200
REGISTER_LIMIT = 8
STATE_VERSION = b"\x01"
REGISTERS = {"identify": "attributes", "group_assigned": "group", "consent_changed": "purposes"}
WHOLE = ("cart_update", "wishlist_update")

Entry = tuple[int, int, str, dict[str, Any]]


class Outcome(Enum):
    """What became of an event."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    TOO_OLD = "too_old"
    PENDING = "pending"


class Profile(msgspec.Struct, array_like=True):
    """`log`: type -> entries (at, id, website, props) ascending. `dropped`: type -> (how many, the newest's instant).

    `registers`: name -> assignments (at, id, value) ascending. `pending`: dated in the future, folded when due.
    `ids` is a cache of what was seen, never stored.
    """

    kind: str
    log: dict[str, list[Entry]]
    registers: dict[str, list[tuple[int, int, Any]]]
    dropped: dict[str, tuple[int, int]]
    pending: list[Activity]
    ids: set[int] | None = None

    @property
    def group(self) -> str:
        """The customer group, or an empty string."""
        return str(register(self, "group") or "")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Profile).decode


def empty(kind: str) -> Profile:
    """A person of whom nothing is known yet; `kind` is visitor or customer."""
    return Profile(kind, {}, {}, {}, [])


def encode(profile: Profile) -> bytes:
    """The state as bytes: a version, then MessagePack."""
    profile.ids = None
    return STATE_VERSION + _encode(profile)


def decode(state: bytes) -> Profile:
    """The state back. Raises ValueError for a version this code does not know."""
    if state[:1] != STATE_VERSION:
        raise ValueError("unknown state version")
    return _decode(memoryview(state)[1:])


def _ids(profile: Profile) -> set[int]:
    if profile.ids is None:
        profile.ids = {entry[1] for entries in profile.log.values() for entry in entries}
        profile.ids.update(activity.id_hash for activity in profile.pending)
    return profile.ids


def fold(profile: Profile, activity: Activity, now: int) -> Outcome:
    """Take one event in. One dated after `now` waits until it is due."""
    ids = _ids(profile)
    if activity.id_hash in ids:
        return Outcome.DUPLICATE
    horizon = profile.dropped.get(activity.type)
    if horizon is not None and activity.at <= horizon[1]:
        return Outcome.TOO_OLD
    ids.add(activity.id_hash)
    if activity.at > now:
        insort(profile.pending, activity, key=lambda a: (a.at, a.id_hash))
        return Outcome.PENDING
    _insert(profile, activity)
    return Outcome.APPLIED


def _insert(profile: Profile, activity: Activity) -> None:
    entries = profile.log.get(activity.type)
    if entries is None:
        entries = profile.log[activity.type] = []
    entry = (activity.at, activity.id_hash, activity.website, activity.props)
    if activity.type in REGISTERS:
        entry = (activity.at, activity.id_hash, activity.website, {})
        _assign(profile, activity)
    if not entries or entry[:2] > entries[-1][:2]:
        if entries and activity.type in WHOLE:
            entries[-1] = _without_items(entries[-1])
        entries.append(entry)
    else:
        if activity.type in WHOLE:
            entry = _without_items(entry)
        entries.insert(bisect_left(entries, entry[:2], key=lambda e: e[:2]), entry)
    _bound(profile, activity.type)


def _without_items(entry: Entry) -> Entry:
    """An older whole cart keeps its amounts; its lines will never be looked at again."""
    return (*entry[:3], {k: v for k, v in entry[3].items() if k != "items"})


def _bound(profile: Profile, kind: str) -> None:
    entries = profile.log[kind]
    while len(entries) > LIMIT:
        oldest = entries.pop(0)
        profile.dropped[kind] = (profile.dropped.get(kind, (0, 0))[0] + 1, oldest[0])


def _assign(profile: Profile, activity: Activity) -> None:
    if activity.type == "identify":
        values = {f"attributes.{k}": v for k, v in (activity.props.get("attributes") or {}).items()}
    else:
        name = REGISTERS[activity.type]
        values = {name: activity.props.get(name)}
    for name, value in values.items():
        history = profile.registers.setdefault(name, [])
        insort(history, (activity.at, activity.id_hash, value), key=lambda item: item[:2])
        del history[:-REGISTER_LIMIT]


def advance(profile: Profile, now: int) -> None:
    """Fold what was dated in the future and is due by `now`."""
    while profile.pending and profile.pending[0].at <= now:
        _insert(profile, profile.pending.pop(0))


def merge(into: Profile, source: Profile, now: int) -> None:
    """Make one person of two: as if every event of `source` had been folded into `into`."""
    ids = _ids(into)
    for kind, entries in source.log.items():
        mine = into.log.get(kind, [])
        joined = sorted([*mine, *(e for e in entries if e[1] not in ids)], key=lambda e: e[:2])
        if kind in WHOLE:
            joined[:-1] = [_without_items(e) for e in joined[:-1]]
        into.log[kind] = joined
        _bound(into, kind)
    for kind, (count, horizon) in source.dropped.items():
        mine_count, mine_horizon = into.dropped.get(kind, (0, 0))
        into.dropped[kind] = (mine_count + count, max(mine_horizon, horizon))
    for name, history in source.registers.items():
        joined_history = sorted(
            {(at, i): (at, i, v) for at, i, v in [*into.registers.get(name, []), *history]}.values(),
            key=lambda item: item[:2],
        )
        into.registers[name] = joined_history[-REGISTER_LIMIT:]
    into.pending = sorted(
        {a.id_hash: a for a in [*into.pending, *source.pending]}.values(), key=lambda a: (a.at, a.id_hash)
    )
    into.ids = None
    advance(into, now)


def register(profile: Profile, name: str) -> Any:
    """The latest value assigned to a register, or None."""
    history = profile.registers.get(name)
    return history[-1][2] if history else None


def consent_flags(profile: Profile) -> int:
    """Bit 0: personalisation was denied. Bit 1: analytics was denied."""
    purposes = register(profile, "purposes") or {}
    return sum(1 << i for i, name in enumerate(("personalisation", "analytics")) if purposes.get(name) is False)


def cart(profile: Profile) -> dict[str, Any]:
    """The current cart: the last whole one, changed by later additions and removals; an order empties it."""
    whole = profile.log.get("cart_update")
    at, lines, totals = 0, [], {}
    if whole:
        at, totals = whole[-1][0], whole[-1][3]
        lines = [dict(line) for line in totals.get("items") or []]
    changes = [
        (entry[0], sign, entry[3].get("item") or {})
        for kind, sign in (("add_to_cart", 1), ("remove_from_cart", -1))
        for entry in profile.log.get(kind, [])
        if entry[0] > at
    ]
    ordered = profile.log.get("order_placed")
    emptied = ordered[-1][0] if ordered else 0
    if emptied > at:
        lines, totals = [], {}
        changes = [c for c in changes if c[0] > emptied]
    for _, sign, item in sorted(changes, key=lambda c: c[0]):
        _change_line(lines, item, sign)
    quantity = sum(line.get("quantity", 1) for line in lines)
    subtotal = totals.get("subtotal")
    if changes or subtotal is None:
        subtotal = round(sum(line.get("price", 0) * line.get("quantity", 1) for line in lines), 4)
    grand = totals.get("grand_total") if not changes else None
    return {
        "items": lines,
        "line_items": len(lines),
        "quantity": quantity,
        "subtotal": subtotal,
        "grand_total": subtotal if grand is None else grand,
        "coupon": totals.get("coupon"),
    }


def _change_line(lines: list[dict[str, Any]], item: dict[str, Any], sign: int) -> None:
    quantity = sign * item.get("quantity", 1)
    for line in lines:
        if line.get("sku") == item.get("sku"):
            line["quantity"] = line.get("quantity", 1) + quantity
            if line["quantity"] <= 0:
                lines.remove(line)
            return
    if quantity > 0:
        lines.append({**item, "quantity": quantity})


def view(profile: Profile) -> dict[str, Any]:
    """What support may look at: counts per event type, attributes, cart and group; no raw history."""
    return {
        "kind": profile.kind,
        "group": profile.group,
        "attributes": {
            n.removeprefix("attributes."): h[-1][2] for n, h in profile.registers.items() if n.startswith("attributes.")
        },
        "cart": cart(profile),
        "events": {kind: len(e) + profile.dropped.get(kind, (0, 0))[0] for kind, e in profile.log.items()},
        "pending": len(profile.pending),
    }
