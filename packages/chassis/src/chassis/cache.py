"""Redis or Valkey: the client for everything but the hot path, how numbers are read, and writes in which an old one never wins.

What stands there may be anybody's: what cannot be read is not known, and a write goes over it, whatever it is.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import RedisError, ResponseError

from chassis.telemetry import get_logger

UNKNOWN_RUN = "?"
# Values start with an 8-byte big-endian version: bytes compare as the numbers do. None is so high that it begins as a text does.
PUT = f"""for i, key in ipairs(KEYS) do
    local old = redis.pcall('GETRANGE', key, 0, 7)
    if type(old) ~= 'string' or old == '' or old:match('^[ -~]') or old <= ARGV[i]:sub(1, 8) then
        redis.call('SET', key, ARGV[i])
    end
end
local said = redis.pcall('INFO', 'server')
return type(said) == 'string' and said:match('run_id:(%w+)') or '{UNKNOWN_RUN}'"""
# What was published late must not hide what came after it, whichever of two writers is slower. Nobody comes so FAR as what
# stands there by mistake may say: a database that went on after it would have no number left that can be read.
RAISE = """local old = redis.pcall('GET', KEYS[1])
local known = type(old) == 'string' and #old <= 15 and old:match('^%d+$') and old - ARGV[1] <= tonumber(ARGV[2])
if known and tonumber(old) >= tonumber(ARGV[1]) then return {old, 0} end
redis.call('SET', KEYS[1], ARGV[1])
return {ARGV[1], (known or not old) and 0 or 1}"""
NUMBER = re.compile(rb"[0-9]{1,15}")  # RAISE computes with no more digits exactly
# Once, whoever else comes with what stands there; more arguments are those of SET.
REPLACE = """local old = redis.pcall('GET', KEYS[1])
if (type(old) == 'string' and old or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], unpack(ARGV, 3))
return 1"""
FAR = 10**9
MOST_KEYS = 500
log = get_logger("cache")


def open_redis(url: str) -> Any:
    """A client; connections are made when they are needed."""
    return aioredis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0)


def number(key: str, value: bytes | None) -> int | None:
    """The whole number that stands under a key; None where none does, or what cannot be read."""
    if value is None:
        return None
    if NUMBER.fullmatch(value):
        return int(value)
    _unreadable(key)
    return None


async def number_at(redis: Any, key: str) -> int | None:
    """The same, read now; None while Redis does not say."""
    try:
        return number(key, await redis.get(key))
    except ResponseError:  # it is no text
        _unreadable(key)
    except RedisError:
        pass
    return None


def _unreadable(key: str) -> None:
    log.error("redis_unreadable", key=key)


async def raise_to(redis: Any, key: str, value: int) -> int:
    """Have a number there that only rises: answers the higher of this one and what stood there, if that can be read and is not
    FAR above."""
    highest, odd = await redis.eval(RAISE, 1, key, value, FAR)
    if odd:
        _unreadable(key)
    return int(highest)


async def replace(redis: Any, key: str, old: str | bytes, new: str | bytes, *, for_s: int | None = None) -> bool:
    """Put `new` there, for good or so long, if `old` stands there (empty: no text does). Answers whether it did."""
    return bool(await redis.eval(REPLACE, 1, key, old, new, *(() if for_s is None else ("EX", for_s))))


async def run_of(redis: Any) -> str:
    """What names this run of the server: one that was started again, or took over, has another, and may have lost something.

    UNKNOWN_RUN where it may not be asked.
    """
    try:
        return str((await redis.info("server"))["run_id"])
    except (ResponseError, KeyError):
        return UNKNOWN_RUN


async def may_evict(redis: Any) -> bool:
    """Whether the server drops, for room, keys that no one gave an end."""
    try:
        memory = await redis.info("memory")
        return bool(memory["maxmemory"]) and str(memory["maxmemory_policy"]).startswith("allkeys-")
    except (ResponseError, KeyError):
        return False  # where it may not be asked


def versioned(version: int, payload: bytes) -> bytes:
    """What VersionedWriter stores."""
    return struct.pack(">Q", version) + payload


class VersionedWriter:
    """Writes (key, version, payload), hundreds of them per command."""

    def __init__(self, redis: Any) -> None:
        self._put = redis.register_script(PUT)

    async def put_many(self, entries: Sequence[tuple[str, int, bytes]]) -> set[str]:
        """Write every entry whose version is not older than the stored one; answers to which runs of the server (`run_of`)."""
        runs: set[str] = set()
        for start in range(0, len(entries), MOST_KEYS):
            part = entries[start : start + MOST_KEYS]
            run = await self._put(keys=[key for key, _, _ in part], args=[versioned(v, body) for _, v, body in part])
            runs.add(run.decode())
        return runs
