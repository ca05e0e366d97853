"""Redis or Valkey: the client for everything but the hot path, and writes in which an old version never wins."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis

# Values start with an 8-byte big-endian version: bytes compare as the numbers do.
PUT = """local old = redis.call('GETRANGE', KEYS[1], 0, 7)
if old == '' or old <= string.sub(ARGV[1], 1, 8) then redis.call('SET', KEYS[1], ARGV[1]) return 1 end
return 0"""


def open_redis(url: str) -> Any:
    """A client; connections are made when they are needed."""
    return aioredis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0)


def versioned(version: int, payload: bytes) -> bytes:
    """What VersionedWriter stores."""
    return struct.pack(">Q", version) + payload


class VersionedWriter:
    """Writes (key, version, payload); one round trip for many, one key per script so that a cluster can split them."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._put = redis.register_script(PUT)

    async def put_many(self, entries: Sequence[tuple[str, int, bytes]]) -> None:
        """Write every entry whose version is not older than the stored one."""
        if not entries:
            return
        pipe = self._redis.pipeline(transaction=False)
        for key, version, payload in entries:
            await self._put(keys=[key], args=[versioned(version, payload)], client=pipe)
        await pipe.execute()
