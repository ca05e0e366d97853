"""Called by POST /admin/v1/kills: takes a block, slot or rule off everywhere at once, whatever is published and whoever is away;
and by the gateway's clock, to learn of what others killed.

The list is in Redis, and every gateway has a copy. Beside it the owner is asked to switch off what is killed, whose word reaches
gateways that Redis does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
import msgspec
from chassis.auth import Actor
from chassis.cache import number, run_of
from chassis.clock import Clock
from chassis.health import Health
from chassis.problems import Problem
from chassis.schemas import MOST_KILLED
from chassis.service import FOLLOW_S, repeat
from chassis.telemetry import get_logger
from redis.exceptions import RedisError

from gateway.adapters.upstreams import CONTENT, PROMO, Upstreams, unavailable
from gateway.domain import kills
from gateway.flows.knowledge import Knowledge
from gateway.flows.purge import Purger

# LIST: which list this is, whoever began it; LAST: which was its last change.
KILLS, COUNT, LIST, LAST, GATEWAYS = "kills", "ver:kill", "kills:list", "kills:last", "gateways"
LOOK_S, LEASE_S, DONE_S, ASK_S = 0.25, 3, 2.5, 1.5
LOST_S = 60  # for how long one that says nothing any more, and did not say that it ends, may show what was killed
OWNERS = {"block": (CONTENT, "blocks"), "slot": (CONTENT, "slots"), "rule": (PROMO, "cart-rules")}
SWITCHED_OFF = ("block", "rule")  # a slot has no such state
# One more in the list, and what tells a change; its number, 0 for one that is too many. One piece, for others kill at once.
ADD = """if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[4], 'NX')
redis.call('SET', KEYS[3], ARGV[4])
return redis.call('INCR', KEYS[4])"""
# What is there and cannot be what we write is forgotten, and with it which list this is: then the copies together are the list.
FORGET = """local odd = {}
for i, kind in ipairs({'string', 'string', 'string', 'hash', 'zset'}) do
    local found = redis.call('TYPE', KEYS[i])['ok']
    local wrong = found ~= 'none' and found ~= kind
    if i == 1 and found == 'string' then
        local count = redis.call('GET', KEYS[1])
        wrong = #count > 15 or not count:match('^%d+$')
    end
    if wrong then
        redis.call('DEL', KEYS[i], KEYS[2])
        odd[#odd + 1] = KEYS[i]
    end
end
return odd"""
log = get_logger("kill")


@dataclass(slots=True)
class Done:
    """What became of a kill: gateways and edges that have not acknowledged it, what its owner said, and the caches that nobody
    can have forget it."""

    name: str
    stored: bool
    owner: str
    caches: tuple[str, ...] = ()
    gateways: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)

    def view(self) -> dict[str, Any]:
        """What the API answers."""
        kind, _, key = self.name.partition(":")
        missing = {
            "redis": not self.stored, "gateways": self.gateways, "edges": self.edges, "caches": list(self.caches),
        }  # fmt: skip
        done = not any(missing.values())
        return {"kind": kind, "key": key, "owner": self.owner, "done": done, "missing": missing}


class Copied(NamedTuple):
    """How far somebody has a list of kills."""

    list: str
    number: int
    last: str

    def has_more_than(self, there: Copied) -> bool:
        """Whether something of it is not there: another list, an older state of this one, or one that went on from an older."""
        if not self.list:
            return False
        return (
            there.list != self.list
            or there.number < self.number
            or (there.number == self.number and there.last != self.last)
        )


def copied(said: Sequence[bytes | None]) -> Copied:
    """From LIST, COUNT and LAST."""
    named, count, last = said
    return Copied(_text(named or b""), number(COUNT, count) or 0, _text(last or b""))


class Killer:
    """One per gateway."""

    def __init__(
        self,
        knowledge: Knowledge,
        redis: Any,
        merchants: Upstreams,
        purger: Purger,
        clock: Clock,
        health: Health,
        *,
        caches: tuple[str, ...] = (),
    ) -> None:
        self._caches = caches
        self._knowledge, self._redis, self._merchants, self._purger = knowledge, redis, merchants, purger
        self._clock, self._health, self._id = clock, health, uuid.uuid4().hex
        self._copied = Copied("", 0, "")
        self._reached_s = math.inf  # since when Redis was there whenever it was asked
        knowledge.kills_known = False

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the copy, and say so, until `stop` is set."""
        await repeat(self.look, stop, name="redis kills", idle_s=LOOK_S, health=self._health, most_s=FOLLOW_S)
        with contextlib.suppress(RedisError, OSError):
            await self._redis.zrem(GATEWAYS, self._id)

    async def look(self) -> bool:
        """Take in what is killed, and acknowledge it. As long as that is known of us, what is answered may be shared."""
        began_s = asyncio.get_running_loop().time()
        reached_s, self._reached_s = self._reached_s, math.inf
        run = await run_of(self._redis)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.eval(FORGET, 5, COUNT, LIST, LAST, KILLS, GATEWAYS)
            odd, found, listed = await pipe.mget(LIST, COUNT, LAST).hkeys(KILLS).execute()
        for key in odd:
            log.error("redis_unreadable", key=_text(key))
        there = copied(found)
        if self._copied.has_more_than(there):  # it lost some: all copies together are the list
            await self._restore()
            return True
        self._copied = there
        self._take(frozenset(_names(listed)))
        async with self._redis.pipeline(transaction=True) as pipe:
            await (
                pipe.set(f"gateway:{self._id}", there.number, ex=LEASE_S)
                .zadd(GATEWAYS, {self._id: self._clock.now_ms()})
                .execute()
            )
        self._knowledge.leased(run, began_s + LEASE_S)
        self._reached_s = min(reached_s, began_s)
        return False

    async def _restore(self) -> None:
        said = json.dumps({"by": "copy of a gateway", "at_ms": self._clock.now_ms()})
        async with self._redis.pipeline(transaction=True) as pipe:
            for name in self._knowledge.kills:
                pipe.hsetnx(KILLS, name, said)
            pipe.set(LIST, self._copied.list, nx=True).incrby(COUNT, self._copied.number + 1).set(
                LAST, uuid.uuid4().hex
            )
            *_, there = await pipe.mget(LIST, COUNT, LAST).execute()
        self._copied = copied(there)

    def _take(self, listed: kills.Kills) -> None:
        for name in listed - self._knowledge.kills:
            self._purger.owe(kills.tags(name, self._knowledge.release.content))
        for name in self._knowledge.kills - listed:
            self._purger.owe(kills.tags(name, self._knowledge.release.content))
        self._knowledge.kill(listed)

    async def listed(self) -> list[dict[str, Any]]:
        """What is killed, by whom and since when (epoch ms). Raises Problem 503."""
        try:
            found = await self._redis.hgetall(KILLS)
        except (RedisError, OSError):
            raise unavailable() from None
        return [_killed(name, found[name.encode()]) for name in sorted(_names(found))]

    async def kill(self, name: str, *, actor: Actor) -> Done:
        """Kill, and wait until everybody has acknowledged it, DONE_S at most. Raises Problem 503 when nobody took it, 409."""
        until_s = asyncio.get_running_loop().time() + DONE_S
        owner, count = await asyncio.gather(self._switch_off(name, actor), self._store(name, actor))
        if count is None and owner != "disabled":
            raise unavailable()
        self._take(self._knowledge.kills | {name})
        done = Done(name, count is not None, owner, self._caches)
        while asyncio.get_running_loop().time() < until_s:
            done.gateways, done.edges = await self._missing(count or 0), self._purger.owing()
            if not done.gateways and not done.edges:
                break
            await asyncio.sleep(0.05)
        return done

    async def lift(self, name: str) -> None:
        """Let be shown again what is published. Raises Problem 404, 503."""
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hdel(KILLS, name).set(LIST, uuid.uuid4().hex, nx=True).set(LAST, uuid.uuid4().hex).incr(COUNT)
                gone, *_ = await pipe.execute()
        except (RedisError, OSError):
            raise unavailable() from None
        if not gone:
            raise Problem("not-found", 404, "It is not killed")
        self._take(self._knowledge.kills - {name})

    async def _store(self, name: str, actor: Actor) -> int | None:
        """The number of this change of the list; None when it could not be made."""
        said = json.dumps({"by": actor.subject, "at_ms": self._clock.now_ms()})
        try:
            count = await self._redis.eval(ADD, 4, KILLS, LIST, LAST, COUNT, name, said, MOST_KILLED, uuid.uuid4().hex)
        except (RedisError, OSError):
            return None
        if not count:
            raise Problem("kills-full", 409, "Too much is killed", detail=f"At most {MOST_KILLED}: lift what is over")
        return int(count)

    async def _switch_off(self, name: str, actor: Actor) -> str:
        kind, _, key = name.partition(":")
        if kind not in SWITCHED_OFF:
            return "none"
        service, noun = OWNERS[kind]
        path = f"/v1/{noun}/{key}/disable"
        try:
            answer = await self._merchants.send(service, "POST", path, actor=actor, most_s=ASK_S)
        except httpx.HTTPError:
            return "away"
        return {200: "disabled", 404: "unknown"}.get(answer.status_code, "refused")

    async def _missing(self, count: int) -> list[str]:
        """Gateways that have not acknowledged so much, and those that were lost: nobody is, because Redis was."""
        try:
            if asyncio.get_running_loop().time() - self._reached_s > LOST_S:
                await self._redis.zremrangebyscore(GATEWAYS, 0, self._clock.now_ms() - LOST_S * 1000)
            names = sorted(map(_text, await self._redis.zrange(GATEWAYS, 0, -1)))
            seen: Sequence[Any] = await self._redis.mget([f"gateway:{name}" for name in names]) if names else []
        except (RedisError, OSError):
            return ["unknown: Redis is away"]
        taken = [number("gateway", said) for said in seen]
        return [name for name, upto in zip(names, taken, strict=True) if upto is None or upto < count]


def _names(listed: Iterable[bytes]) -> list[str]:
    """The kills of a list; whatever else stands in it is none."""
    return [name for kind, _, key in (_text(n).partition(":") for n in listed) if (name := kills.name_of(kind, key))]


def _killed(name: str, said: bytes) -> dict[str, Any]:
    """By whom, and since when, as far as that can be read."""
    kind, _, key = name.partition(":")
    try:
        who = msgspec.json.decode(said, type=_Said)
    except msgspec.DecodeError:
        who = _Said()
    return {"kind": kind, "key": key, "by": who.by, "at_ms": who.at_ms}


class _Said(msgspec.Struct):
    by: str = ""
    at_ms: int = 0


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
