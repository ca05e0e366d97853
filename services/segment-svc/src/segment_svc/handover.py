"""Audience documents go to Redis, and what is there the database has.

A random token is committed after the documents of a lot. Then, before they are written, it takes the place in Redis of one that
the database has. So as long as the database has the token that stands in Redis, it has whatever was handed on. One that went
back (restored, or failed over to a standby that was behind) has not; a number it might have again, by another history.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from chassis.cache import VersionedWriter, replace
from chassis.db import Database, Tx
from chassis.outbox import Refusal, readable
from chassis.telemetry import get_logger
from redis.exceptions import RedisError, ResponseError

from segment_svc import wire
from segment_svc.wire import MARK

HANDED = "aud:handed"
KNOWN = "SELECT $1 = ''::bytea OR EXISTS (SELECT FROM handed WHERE token = $1)"
NEXT = f"WITH new AS (INSERT INTO handed (token) VALUES ($2)) {KNOWN}"  # noqa: S608 - constants
# A token that was replaced in Redis is asked for no more, but by who began before that.
FORGET = "DELETE FROM handed WHERE at < now() - interval '10 minutes' AND token <> $1"
AWAY_S = 3
HOME = "SELECT run FROM home"
# A time that is still to come was written by a clock that was set back since.
KEEP = """WITH was AS (SELECT run FROM home FOR UPDATE) UPDATE home SET run = $1, at = clock_timestamp() FROM was
    WHERE home.run IN ('', $1) OR abs(extract(epoch FROM clock_timestamp() - at)) > $2 RETURNING was.run"""
PATIENCE_S, STREAK_S = 1.0, 15.0  # a relay tries again after ten seconds at most
TOKEN_BYTES = 16
ERA = re.compile(rb"[0-9]{1,4}")
log = get_logger("handover")


class WentBack(Exception):
    """The database has not all that was handed on: nothing more is, until project.go_on has begun another era."""


class NotAtHome(Exception):
    """Documents are handed to another Redis than the one that is reached: these have to be, too."""


async def keep(tx: Tx, redis: Any, run: str) -> bool:
    """Whether this run of Redis, which is reached now, is the home of the documents, or becomes it: then it was left behind until
    now, and what it says of itself does not count.
    """
    before: str | None = await tx.fetchval(KEEP, run, AWAY_S)
    if before not in (None, "", run):
        await doubt(redis, "documents were handed to another Redis")
    return before is not None


async def token_of(redis: Any) -> bytes:
    """The token in Redis; nothing while nobody knows."""
    try:
        return _token(await _text_at(redis, HANDED))
    except RedisError:
        return b""


def _token(text: bytes) -> bytes:
    """Of what stands in Redis, which may be anybody's, and of any length."""
    return text if len(text) <= TOKEN_BYTES else blake2b(text, digest_size=TOKEN_BYTES).digest()


async def _text_at(redis: Any, key: str) -> bytes:
    """Nothing where none is, or what is no text."""
    (found,) = await redis.mget([key])
    return found or b""


async def known(tx: Tx, token: bytes) -> bool:
    """Whether the database has all that was handed on when Redis had `token`, as it has now; forgets old ones."""
    if token:
        await tx.execute(FORGET, token)
    found: bool = await tx.fetchval(KNOWN, token)
    return found


async def adopt(tx: Tx, token: bytes) -> None:
    """Go on after a token that was lost."""
    await tx.execute("INSERT INTO handed (token) VALUES ($1) ON CONFLICT DO NOTHING", token)


async def doubt(redis: Any, cause: str) -> int:
    """Say that documents may be missing, so that nobody is known until all are written anew; answers the era they were of."""
    text, _, run = (await _text_at(redis, MARK)).partition(b" ")
    era = int(text) if ERA.fullmatch(text) else 0
    if run:
        log.error("documents_doubtful", cause=cause)
        try:
            await redis.set(MARK, era)
        except ResponseError:  # it is full: a key can go, but none can come
            await redis.delete(MARK)
    elif not ERA.fullmatch(text):  # whoever writes all anew has to begin again
        await redis.delete(MARK)
    return era


class Handover:
    """The handler of the outbox for documents. What Redis does not take for over PATIENCE_S is doubted there."""

    def __init__(self, db: Database, redis: Any) -> None:
        self._db, self._redis, self._writer, self._token = db, redis, VersionedWriter(redis), b""
        self._failed_first = self._failed_last = -STREAK_S

    async def __call__(self, payloads: Sequence[bytes]) -> list[Refusal]:
        """Write documents. Raises WentBack, NotAtHome, and what Redis and the database raise."""
        documents, refused = readable(payloads, wire.documents_of)
        try:
            await self._announce()
            runs = await self._writer.put_many(documents)
        except RedisError as error:
            await self._failed(type(error).__name__)
            raise
        self._failed_last = -STREAK_S
        # Asked afterwards: whatever becomes the home later gets these with all the others.
        if (home := await self._db.once(HOME)) and not runs <= {home}:
            raise NotAtHome
        return refused

    async def _announce(self) -> None:
        """Put a new token into Redis, again if another relay was faster: what that handed on must be there too."""
        while True:
            guess, self._token = self._token, b""  # right unless another relay was faster
            seen, token = guess or await _text_at(self._redis, HANDED), uuid.uuid4().bytes
            known = await self._db.once(NEXT, _token(seen), token)
            if not known and not guess:
                raise WentBack
            if known and await replace(self._redis, HANDED, seen, token):
                self._token = token
                return

    async def _failed(self, cause: str) -> None:
        now = time.monotonic()
        if now - self._failed_last > STREAK_S:
            self._failed_first = now
        self._failed_last = now
        if now - self._failed_first > PATIENCE_S:
            await doubt(self._redis, cause)
