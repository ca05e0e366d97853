"""Redis or Valkey: the client for everything but the hot path, and writes in which an old version never wins."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import ResponseError

# Values start with an 8-byte big-endian version: bytes compare as the numbers do.
PUT = """for i, key in ipairs(KEYS) do
    local old = redis.call('GETRANGE', key, 0, 7)
    if old == '' or old <= string.sub(ARGV[i], 1, 8) then redis.call('SET', key, ARGV[i]) end
end"""
MOST_KEYS = 500
UNKNOWN_RUN = "?"


def open_redis(url: str) -> Any:
    """A client; connections are made when they are needed."""
    return aioredis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0)


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

    async def put_many(self, entries: Sequence[tuple[str, int, bytes]]) -> None:
        """Write every entry whose version is not older than the stored one."""
        for start in range(0, len(entries), MOST_KEYS):
            part = entries[start : start + MOST_KEYS]
            await self._put(keys=[key for key, _, _ in part], args=[versioned(v, body) for _, v, body in part])
