"""Called by the API when a merchant saves, switches off or deletes a segment. Writes definitions, starts a backfill.

A saved definition is computed in the shadow for everybody while the old one serves (jobs.py, flows/backfill.py); a segment
that is switched off stops at once. Segments that refer to a changed one are computed anew with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import thread_time
from typing import Any
from zoneinfo import ZoneInfo

from chassis.auth import Actor
from chassis.beside import owner
from chassis.db import Tx
from chassis.documents import RELEASE
from chassis.problems import Problem
from chassis.websites import loses, named, theirs, touched, visible
from conditions import Fault
from conditions.context import SAID_BY_ANYBODY

from segment_svc import catalog, definitions, jobs, store
from segment_svc.catalog import Stored
from segment_svc.definitions import UNREADABLE
from segment_svc.deps import Deps
from segment_svc.domain.checks import among, check
from segment_svc.domain.definition import Definition, request_fields, retyped
from segment_svc.domain.part import atoms_needed
from segment_svc.domain.probes import run_probes
from segment_svc.jobs import as_saved
from segment_svc.upstreams import PROMO

MOST_OWN_ATOMS = 64


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody wants a segment to be; `expected` is the version they saw (None: it must be new)."""

    key: str
    body: dict[str, Any]
    expected: int | None
    actor: Actor


async def save_segment(deps: Deps, change: Change) -> Stored:
    """Save a definition.

    Raises Problem 403 not-your-website, 404 not-found, 409 segment-exists, segment-in-use or quota-full, 412 stale-version, 422
    too-large or rule-invalid, 503 busy.
    """
    active = change.body["status"] != "inactive"  # what nobody refers to can be switched off whatever it is
    used_by = await _elsewhere(deps, change)
    needs = 0
    if active:  # before anything is locked, and beside the loop: it takes its time
        alone = as_saved(Stored(0, change.key, 1, None, change.body))
        needs = await deps.trying.run(owner(change.actor), try_alone, alone, deps.rulebook.zone)
    await deps.ahead()
    async with deps.db.tx() as tx:
        now = await definitions.alone(tx, deps.clock)
        release = await definitions.publish(tx, [f"segment:{change.key}"], now=now, after=deps.rulebook.highest)
        stored = {s.key: s for s in await catalog.read_all(tx)}
        old = stored.get(change.key)
        _expect(old, change)
        theirs(change.actor, touched(change.body, old.body if old else None))
        await catalog.QUOTA.check(tx, change.body, old and old.body, catalog.OTHERS, change.key)
        version = 1 if old is None else old.version + 1
        draft = Stored(old.id if old else 0, change.key, version, None, change.body)
        others = [s for s in stored.values() if s.key != change.key]
        if active:
            # A name says nothing of what is hidden.
            _check([s for s in others if visible(change.actor, s.body)], draft)
            _check(others, draft)
        users = catalog.dependents(list(stored.values()), change.key)
        if change.body["status"] == "active" and not request_fields(change.body["condition"]):
            stays = touched(change.body)
            lost = [user for user in users if old and stays and loses(user.body, touched(old.body), stays)]
        else:
            lost = users
        _unused(used_by + _named(lost, change.actor))
        segment_id = await catalog.insert(
            tx,
            change.key,
            version,
            segment_id=old.id if old else None,
            body=change.body,
            actor=change.actor.subject,
            now=now,
        )
        live, serves = (old.live_version, old.serving) if old else (None, None)
        saved = Stored(segment_id, change.key, version, live, change.body, serves=serves)
        stored[change.key] = saved
        if change.body["status"] != "active":
            await _retire(tx, saved, now=now)
        else:
            await jobs.plan(deps, tx, [saved, *users], list(stored.values()), {(segment_id, version): needs})
        result = await catalog.read(tx, change.key)
    await _tell(deps, release)
    assert result is not None
    return result


def _expect(old: Stored | None, change: Change) -> None:
    if change.expected is None and old is not None:
        raise Problem("segment-exists", 409, "A segment with this key exists", pointers=["/key"])
    if change.expected is not None and (old is None or not visible(change.actor, old.body)):
        raise Problem("not-found", 404, "No such segment")
    if old is not None and change.expected != old.version:
        raise Problem(
            "stale-version", 412, "The segment was changed meanwhile", detail=f"It is at version {old.version}"
        )


async def _elsewhere(deps: Deps, change: Change) -> list[str]:
    """Who of other services relies on what will not be there any more, or be another sort of thing; who gives a price for what a
    page says of itself, for a rule may name what is not there yet. Raises Problem 503.
    """
    active, old = change.body["status"] == "active", None
    if change.expected is not None:
        async with deps.db.tx() as tx:
            old = await catalog.read(tx, change.key)
    served = old is not None and old.body.get("status") == "active"
    if old is not None and (not active or (served and retyped(old.body, change.body))):
        return await deps.users.of(change.key, change.actor)
    users = []
    if active and not SAID_BY_ANYBODY.isdisjoint(request_fields(change.body["condition"])):
        users += await deps.users.of(change.key, change.actor, only=PROMO)
    if old is not None and served and (stays := touched(change.body)) and loses({}, touched(old.body), stays):
        users += await deps.users.of(change.key, change.actor, was=touched(old.body), stays=stays)
    return list(dict.fromkeys(users))


def _named(users: Sequence[Stored], reader: Actor) -> list[str]:
    return named({f"segment {user.key}": user.body for user in users}, reader)


def _unused(users: Sequence[str]) -> None:
    """Raise Problem 409 segment-in-use for who relies on a segment that is to be no more, or nobody's bit any more."""
    if users:
        errors = [{"pointer": "", "detail": user} for user in users]
        raise Problem("segment-in-use", 409, "The segment is in use", errors=errors)


def try_alone(draft: Definition, zone: ZoneInfo) -> int:
    """What can be said of a definition alone, by running it too: how many bits it takes. Raises Problem 422 rule-invalid."""
    refuse(check(draft, zone))
    needs = atoms_needed(draft, zone)
    if needs > MOST_OWN_ATOMS:
        refuse(
            [Fault("", "too-large", f"at most {MOST_OWN_ATOMS} parts of it may stand beside what a request decides")]
        )
    fault = run_probes(draft, zone, own_time=thread_time)
    refuse([fault] if fault else [])
    return needs


def _check(others: list[Stored], draft: Stored) -> None:
    """What the definition refers to is there, and can be read: what cannot is quarantined for that."""
    active = [
        as_saved(s) for s in others if s.body.get("status") == "active" and s.quarantined != UNREADABLE and _complete(s)
    ]
    refuse(among([*active, as_saved(draft)], draft.key))


def _complete(stored: Stored) -> bool:
    """Whether what is stored has the shape of a definition; what has not is quarantined where it is computed."""
    try:
        as_saved(stored)
    except Exception:
        return False
    return True


def refuse(faults: Sequence[Fault]) -> None:
    """Raise Problem 422 rule-invalid when a condition has faults."""
    if faults:
        errors = [{"pointer": "/condition" + f.pointer, "detail": f.detail} for f in faults]
        raise Problem("rule-invalid", 422, "The condition cannot be used", errors=errors)


async def _retire(tx: Tx, stored: Stored, *, now: int) -> None:
    """Everybody leaves at once."""
    await store.empty(tx, stored.id, version=stored.version, cause="definition", now=now)
    await jobs.forget(tx, stored.id)


async def delete_segment(deps: Deps, key: str, *, expected: int, actor: Actor) -> None:
    """Delete a segment nobody uses.

    Raises Problem 403 not-your-website, 404, 412, 409 segment-in-use with the list of its users.
    """
    used_by = await deps.users.of(key, actor)
    await deps.ahead()
    async with deps.db.tx() as tx:
        now = await definitions.alone(tx, deps.clock)
        release = await definitions.publish(tx, [f"segment:{key}"], now=now, after=deps.rulebook.highest)
        stored = await catalog.read_all(tx)
        old = next((s for s in stored if s.key == key), None)
        _expect(old, Change(key, {}, expected, actor))
        assert old is not None
        theirs(actor, touched(old.body))
        _unused(used_by + _named(catalog.dependents(stored, key), actor))
        await _retire(tx, old, now=now)
        await tx.execute("DELETE FROM segment WHERE id = $1", old.id)
    await _tell(deps, release)


async def _tell(deps: Deps, release: int) -> None:
    """Readers know that there is something new before who saved it knows that it is saved."""
    await deps.relay.at_once(RELEASE, b"%d" % release)
    deps.relay.wake()
