"""A person as the fold of what they did. The result does not depend on the order or repetition of events.

The state is a set of events per type, kept sorted, and registers in which the latest assignment wins. How much is kept is
bounded (bounds.py): older events are only counted, and an event older than those cannot be told from a duplicate any more,
so it is refused (too_old). What would be one too many to wait for its time, or of the types and names a shop makes up, is
refused too; of those the order of arrival decides which are known. A merge leaves out the names beyond.
"""

from __future__ import annotations

import sys
from array import array
from bisect import insort
from typing import Any, Literal

import msgspec

from segment_svc.domain import bounds
from segment_svc.domain.activity import Activity, pack, unpack
from segment_svc.domain.bounds import MOST_NAMES, REGISTER_LIMIT, is_one_too_many, waits_in_vain
from segment_svc.domain.log import Log, Longs, longs

# Packed numbers are in the machine's byte order: the other order is another version.
STATE_VERSION = b"\x04" if sys.byteorder == "little" else b"\x84"
NEWER = {bytes([STATE_VERSION[0] + step]) for step in (1, 2, 3)}
REGISTERS = {"identify": "attributes", "group_assigned": "group", "consent_changed": "purposes"}
PURPOSES = ("personalisation", "analytics")
WHOLE = ("cart_update", "wishlist_update")
Outcome = Literal["applied", "duplicate", "too_old", "pending", "too_many_ahead", "too_many_types", "too_many_names"]


class Profile(msgspec.Struct, array_like=True):
    """`log`: per type, what was done. `dropped`: type -> (how many older ones, the newest's instant).

    `registers`: name -> assignments (at, id, value) ascending. `pending`: dated in the future, folded when due. `sites`:
    names of the websites the logs number. `ids` is a cache of what was seen, never stored.
    """

    kind: str
    log: dict[str, Log]
    registers: dict[str, list[tuple[int, int, Any]]]
    dropped: dict[str, tuple[int, int]]
    pending: list[Activity]
    sites: list[str]
    ids: set[int] | None = None

    @property
    def group(self) -> str:
        """The customer group, or an empty string."""
        return str(register(self, "group") or "")


def _column(_: type, stored: bytes) -> Longs:
    return longs(stored)


MOST_SITES = 50  # from so many on, names of websites are looked through
NOTHING = Log.of([])
NO_PROPS = pack({})
_encode = msgspec.msgpack.Encoder(enc_hook=array.tobytes).encode
_decode = msgspec.msgpack.Decoder(Profile, dec_hook=_column).decode


def empty(kind: str) -> Profile:
    """A person of whom nothing is known yet; `kind` is visitor or customer."""
    return Profile(kind, {}, {}, {}, [], [])


def encode(profile: Profile) -> bytes:
    """The state as bytes: a version, then MessagePack."""
    ids, profile.ids = profile.ids, None
    state = STATE_VERSION + _encode(profile)
    profile.ids = ids
    return state


class NewerState(Exception):
    """The state was written by a newer version of the service, which is being rolled out: it can read it, this one cannot."""


def decode(state: bytes) -> Profile:
    """The state back. Raises NewerState, or ValueError for what no version wrote."""
    if state[:1] != STATE_VERSION:
        if state[:1] in NEWER:
            raise NewerState
        raise ValueError("unknown state version")
    return _decode(memoryview(state)[1:])


def read_whole(profile: Profile) -> None:
    """Read all there is of a person, which is else read when it is asked for. Raises whatever is wrong with it."""
    for log in profile.log.values():
        for *_, number, props in log.entries():
            unpack(props), profile.sites[number]
    for activity in profile.pending:
        unpack(activity.props)


def _ids(profile: Profile) -> set[int]:
    if profile.ids is None:
        profile.ids = {id_hash for log in profile.log.values() for id_hash in log.ids}
        profile.ids.update(activity.id_hash for activity in profile.pending)
    return profile.ids


def fold(profile: Profile, activity: Activity, now: int) -> Outcome:
    """Take one event in; answers what became of it. One dated after `now` waits until it is due."""
    ids = _ids(profile)
    if activity.id_hash in ids:
        return "duplicate"
    horizon = profile.dropped.get(activity.type)
    if horizon is not None and activity.at <= horizon[1]:
        return "too_old"
    if activity.at > now and waits_in_vain(profile.pending, activity):
        return "too_many_ahead"
    if is_one_too_many(activity.type, {*profile.log, *(ahead.type for ahead in profile.pending)}):
        return "too_many_types"
    if activity.type in REGISTERS and _has_too_many_names(profile, activity):
        return "too_many_names"
    ids.add(activity.id_hash)
    if activity.at > now:
        insort(profile.pending, activity, key=lambda a: (a.at, a.id_hash))
        return "pending"
    _insert(profile, activity)
    return "applied"


def _insert(profile: Profile, activity: Activity) -> None:
    kind, props = activity.type, activity.props
    log = profile.log.get(kind)
    if log is None:
        log = profile.log[kind] = Log(longs(), longs(), [], [])
    if kind in REGISTERS:
        for name, value in _assigned(activity).items():
            _keep(profile, name, [(activity.at, activity.id_hash, value)])
        props = NO_PROPS
    place = log.insert(activity.at, activity.id_hash, site(profile, activity.website), props)
    if kind in WHOLE:
        superseded = place - 1 if place == len(log) - 1 else place
        if superseded >= 0:
            log.props[superseded] = _without_items(log.props[superseded])
    _bound(profile, kind)
    _forget_sites(profile)


def site(profile: Profile, website: str) -> int:
    """The number the logs have for a website."""
    if website not in profile.sites:
        profile.sites.append(website)
    return profile.sites.index(website)


def _forget_sites(profile: Profile) -> None:
    """Of many websites, those that nothing is kept of any more."""
    if len(profile.sites) > MOST_SITES:
        used = sorted({number for log in profile.log.values() for number in log.sites})
        numbers = {number: new for new, number in enumerate(used)}
        profile.sites = [profile.sites[number] for number in used]
        for log in profile.log.values():
            log.sites[:] = [numbers[number] for number in log.sites]


def _without_items(props: bytes) -> bytes:
    """An older whole cart keeps its amounts; its lines will never be looked at again."""
    return pack({k: v for k, v in unpack(props).items() if k != "items"})


def _bound(profile: Profile, kind: str) -> None:
    log = profile.log[kind]
    over = bounds.over(kind, log)
    if over > 0:
        count, horizon = profile.dropped.get(kind, (0, 0))
        # What a merge brings may be older than what was dropped before: the horizon never goes back.
        profile.dropped[kind] = (count + over, max(horizon, log.at[over - 1]))
        if profile.ids is not None:
            profile.ids.difference_update(log.ids[:over])
        log.trim(over)


def _assigned(activity: Activity) -> dict[str, Any]:
    """The registers an event assigns, with the values."""
    props, name = unpack(activity.props), REGISTERS[activity.type]
    if activity.type == "group_assigned":
        return {name: props.get(name)}
    # each attribute and each purpose is a register of its own: what is not named stays as it was
    return {f"{name}.{k}": v for k, v in (props.get(name) or {}).items()}


def _has_too_many_names(profile: Profile, activity: Activity) -> bool:
    new = _assigned(activity).keys() - profile.registers.keys()
    ahead = {name for a in profile.pending if new and a.type == activity.type for name in _assigned(a)}
    return bool(new) and len(new | (ahead - profile.registers.keys())) > _room(profile, REGISTERS[activity.type])


def _room(profile: Profile, kind: str) -> int:
    return MOST_NAMES[kind] - sum(name.startswith(kind + ".") for name in profile.registers)


def _keep(profile: Profile, name: str, assignments: list[tuple[int, int, Any]]) -> None:
    """Add assignments of a register, each once; one for which a merge has left no room is not begun."""
    if name in profile.registers or _room(profile, name.partition(".")[0]) > 0:
        history = {item[:2]: item for item in [*profile.registers.get(name, ()), *assignments]}
        profile.registers[name] = [history[key] for key in sorted(history)][-REGISTER_LIMIT:]


def advance(profile: Profile, now: int) -> set[str]:
    """Fold what was dated in the future and is due by `now`; answers of which types that was."""
    due = set()
    while profile.pending and profile.pending[0].at <= now:
        due.add(profile.pending[0].type)
        _insert(profile, profile.pending.pop(0))
    return due


def merge(into: Profile, source: Profile, now: int) -> None:
    """Make one person of two: as if every event of `source` had been folded into `into`."""
    ids = _ids(into)
    sites = [site(into, name) for name in source.sites]
    for kind, log in source.log.items():
        theirs = ((at, i, sites[number], props) for at, i, number, props in log.entries() if i not in ids)
        joined = Log.of(sorted([*into.log.get(kind, NOTHING).entries(), *theirs], key=lambda e: e[:2]))
        if kind in WHOLE:
            joined.props[:-1] = [_without_items(props) for props in joined.props[:-1]]
        into.log[kind] = joined
        _bound(into, kind)
    for kind, (count, horizon) in source.dropped.items():
        mine_count, mine_horizon = into.dropped.get(kind, (0, 0))
        into.dropped[kind] = (mine_count + count, max(mine_horizon, horizon))
    for name, history in source.registers.items():
        _keep(into, name, history)
    waiting = [*into.pending, *source.pending]
    into.pending, into.ids = [], None
    done = _ids(into)
    found = {a.id_hash: a for a in waiting if a.id_hash not in done}
    into.pending, into.ids = sorted(found.values(), key=lambda a: (a.at, a.id_hash)), None
    _forget_sites(into)
    advance(into, now)


def register(profile: Profile, name: str) -> Any:
    """The latest value assigned to a register, or None."""
    history = profile.registers.get(name)
    return history[-1][2] if history else None


def consent_flags(profile: Profile) -> int:
    """Bit 0: personalisation was denied. Bit 1: analytics was denied. Only True grants a purpose that was spoken of."""
    said = [profile.registers.get(f"purposes.{name}") for name in PURPOSES]
    return sum(1 << i for i, history in enumerate(said) if history and history[-1][2] is not True)
