"""The names a person goes by: the own key, and the keys of the visitors who logged in as them.

Every document of a person is written under all of them, so there are at most MOST: whoever logged in longest ago is let go, and
is from then on a visitor of whom nothing is known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from chassis.db import Tx

from segment_svc.domain import profile as people
from segment_svc.store import Row

MOST = 1000  # besides the own key
IDENTITIES = "SELECT profile, identity FROM identity WHERE profile = ANY($1::text[])"
UNALIAS = """DELETE FROM identity AS i USING unnest($1::text[], $2::text[]) AS u (profile, identity)
    WHERE i.identity = u.identity AND i.profile <> u.profile"""
ALIAS = """INSERT INTO identity SELECT u.profile, u.identity, $3 FROM unnest($1::text[], $2::text[]) AS u (profile, identity)
    ON CONFLICT DO NOTHING"""
# Whom somebody works on is passed, until the next login: to wait here, after other locks, could be to wait in a circle.
CROWD = """SELECT p.profile, p.website, p.version, p.merged_into AS owner FROM (
        SELECT profile, identity, row_number() OVER (PARTITION BY profile ORDER BY since DESC, identity) AS place
        FROM identity WHERE profile = ANY($1::text[])
    ) AS i JOIN profile AS p ON p.profile = i.identity AND p.merged_into = i.profile
    WHERE i.place > $2 ORDER BY p.profile LIMIT $2 FOR UPDATE OF p SKIP LOCKED"""
FORGET = """DELETE FROM identity AS i USING unnest($1::text[], $2::text[]) AS u (profile, identity)
    WHERE i.profile = u.profile AND i.identity = u.identity"""


async def alias(tx: Tx, owners: Mapping[str, str], *, since: int) -> None:
    """Say that identities (key) now belong to profiles (value), and to no other ones any more."""
    identities = sorted(owners)
    profiles = [owners[name] for name in identities]
    await tx.execute(UNALIAS, profiles, identities)
    await tx.execute(ALIAS, profiles, identities, since)


async def let_go(tx: Tx, rows: Mapping[str, Row], owners: Collection[str]) -> list[Row]:
    """Take from profiles that are among `rows` the names they have over MOST; answers those visitors, to be evaluated and saved.

    Their next document is newer than what a reader may hold under that name, which is their owner's.
    """
    found = await tx.fetch(CROWD, list(owners), MOST)
    if found:
        await tx.execute(FORGET, [r["owner"] for r in found], [r["profile"] for r in found])
    return [
        Row(key, website, people.empty("visitor"), version=max(version, rows[owner].version), names=[key])
        for key, website, version, owner in found
    ]


async def names_of(tx: Tx, profiles: Sequence[str]) -> dict[str, list[str]]:
    """Every identity of each profile, its own key first: a reader may ask under any of them."""
    found = {key: [key] for key in profiles}
    for profile, identity in await tx.fetch(IDENTITIES, profiles):
        found[profile].append(identity)
    return found


async def name(tx: Tx, rows: Sequence[Row]) -> None:
    """Look up the names of rows that have none yet."""
    nameless = [r for r in rows if not r.names]
    if nameless:
        found = await names_of(tx, [r.key for r in nameless])
        for row in nameless:
            row.names = found[row.key]
