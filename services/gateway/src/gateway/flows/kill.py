"""Called by POST /admin/v1/kills: takes a block, slot or rule off everywhere at once, whatever is published and whoever is away;
and by the gateway's clock, to learn of what others killed.

The list is in Redis, every gateway has a copy, and content-svc one that outlives them (kills_kept.py). Beside it the owner is
asked to switch off what is killed, whose word reaches gateways that Redis does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from gateway.flows.kills_kept import KillsKept
from gateway.flows.knowledge import Knowledge
from gateway.flows.purge import Purger

# LIST: which list this is, whoever began it; LAST: which was its last change.
KILLS, COUNT, LIST, LAST, GATEWAYS = "kills", "ver:kill", "kills:list", "kills:last", "gateways"
LOOK_S, LEASE_S, DONE_S, ASK_S, AGAIN_S = 0.25, 3, 2.5, 1.5, 1.0
LOST_S = 60  # for how long one that says nothing any more, and did not say that it ends, may show what was killed
OWNERS = {"block": (CONTENT, "blocks"), "slot": (CONTENT, "slots"), "rule": (PROMO, "cart-rules")}
SWITCHED_OFF = ("block", "rule")  # a slot has no such state
# One more in the list, and what tells a change; its number, 0 for one that is too many. One piece, for others kill at once.
ADD = """if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[4])
return redis.call('INCR', KEYS[3])"""
# A name of the list, if it is still what it was; the number of this change, 0 for none.
CHANGE = """if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4])
return redis.call('INCR', KEYS[3])"""
# What a copy has and the list that was looked at has not; nothing when somebody changed that one meanwhile.
RESTORE = """local list, count, last = unpack(redis.call('MGET', KEYS[1], KEYS[2], KEYS[3]))
if (list or '') ~= ARGV[1] or tonumber(count or 0) ~= tonumber(ARGV[2]) or (last or '') ~= ARGV[3] then return 0 end
for i = 7, #ARGV, 2 do redis.call('HSETNX', KEYS[4], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[5])
redis.call('SET', KEYS[3], ARGV[6])
return 1"""
# What is there and cannot be what we write is forgotten, and with it which list this is: then the copies together are the list.
FORGET = """local odd = {}
for i, kind in ipairs({'string', 'string', 'string', 'hash', 'zset'}) do
    local found = redis.call('TYPE', KEYS[i])['ok']
    local wrong = found ~= 'none' and found ~= kind
    if i == 1 and found == 'string' then
        local count = redis.call('GET', KEYS[1])
        wrong = #count > 15 or not count:match('^%d+$')
    elseif i < 4 and found == 'string' then
        local word = redis.call('GET', KEYS[i])
        wrong = #word > 64 or not word:match('^%w+$')
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
    """What became of a kill: whether Redis and the database have it, gateways and edges that have not acknowledged it, what its
    owner said, and the caches that nobody can have forget it."""

    name: str
    stored: bool
    owner: str
    caches: tuple[str, ...] = ()
    gateways: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    kept: bool = False

    def view(self) -> dict[str, Any]:
        """What the API answers."""
        kind, _, key = self.name.partition(":")
        missing = {
            "redis": not self.stored, "database": not self.kept, "gateways": self.gateways, "edges": self.edges,
            "caches": list(self.caches),
        }  # fmt: skip
        done = not any(missing.values())
        return {"kind": kind, "key": key, "owner": self.owner, "done": done, "missing": missing}


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
        kept: KillsKept,
        caches: tuple[str, ...] = (),
    ) -> None:
        self._kept, self._caches = kept, caches
        self._knowledge, self._redis, self._merchants, self._purger = knowledge, redis, merchants, purger
        self._clock, self._health, self._id = clock, health, uuid.uuid4().hex
        self._copy = kills.NONE
        self._reached_s = math.inf  # since when Redis was there whenever it was asked
        knowledge.kills_known = False

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the copy, and say so, until `stop` is set; and ask the owners that were away."""
        await asyncio.gather(
            repeat(self.look, stop, name="redis kills", idle_s=LOOK_S, health=self._health, most_s=FOLLOW_S),
            repeat(self.ask_owners, stop, name="watch owners", idle_s=AGAIN_S, health=self._health),
        )
        with contextlib.suppress(RedisError, OSError):
            await self._redis.zrem(GATEWAYS, self._id)

    async def look(self) -> bool:
        """Take in what is killed, and acknowledge it. As long as that is known of us, what is answered may be shared."""
        began_s = asyncio.get_running_loop().time()
        reached_s, self._reached_s = self._reached_s, math.inf
        run = await run_of(self._redis)
        there = await self._read()
        copies = (self._ours(), self._kept.news())  # all together are the list
        missing = next((copy for copy in copies if copy.has_more_than(there)), None)
        if missing or not there.list:
            if missing is None and self._kept.said is None:  # it may have been lost: what was killed is not known
                return False
            await self._restore(missing or kills.NONE, there)
            return True
        self._copy = there
        self._kept.hand_over(there)
        self._take(frozenset(there.names))
        async with self._redis.pipeline(transaction=True) as pipe:
            await (
                pipe.set(f"gateway:{self._id}", there.number, ex=LEASE_S)
                .zadd(GATEWAYS, {self._id: self._clock.now_ms()})
                .execute()
            )
        self._knowledge.leased(run, began_s + LEASE_S)
        self._reached_s = min(reached_s, began_s)
        return False

    def _ours(self) -> kills.Copy:
        """What was read last, with what was killed and lifted here since."""
        names = {name: self._copy.names.get(name, kills.Kill()) for name in self._knowledge.kills}
        return msgspec.structs.replace(self._copy, names=names)

    async def _read(self) -> kills.Copy:
        """The list in Redis, without what cannot be one."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.eval(FORGET, 5, COUNT, LIST, LAST, KILLS, GATEWAYS)
            odd, (named, count, last), listed = await pipe.mget(LIST, COUNT, LAST).hgetall(KILLS).execute()
        for key in odd:
            log.error("redis_unreadable", key=_text(key))
        return kills.Copy(_text(named or b""), number(COUNT, count) or 0, _text(last or b""), _named(listed))

    async def _restore(self, copy: kills.Copy, there: kills.Copy) -> None:
        """What a copy has and the list has not; without either, another list begins."""
        names = [word for name, kill in copy.names.items() for word in (name, msgspec.json.encode(kill))]
        begun = uuid.uuid4().hex
        mark = there.list or copy.list or begun, max(copy.number, there.number) + 1, begun
        if await self._redis.eval(RESTORE, 4, LIST, COUNT, LAST, KILLS, *there.mark, *mark, *names):
            self._copy = kills.Copy(*mark, {**copy.names, **there.names})
            self._take(self._knowledge.kills.union(self._copy.names))
            self._kept.took_in(copy)

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
        return [_killed(name, kill) for name, kill in sorted(_named(found).items())]

    async def kill(self, name: str, *, actor: Actor) -> Done:
        """Kill, and wait until everybody has acknowledged it, DONE_S at most. Raises Problem 503 when nobody took it, 409."""
        until_s = asyncio.get_running_loop().time() + DONE_S
        kill = kills.Kill(actor.subject, self._clock.now_ms())
        owner, count = await asyncio.gather(self._switch_off(name, actor), self._store(name, kill))
        if count is None and owner != "disabled":
            raise unavailable()
        if owner == "away":
            count = await self._owe(name, kill, actor.role) or count
        self._take(self._knowledge.kills | {name})
        done = Done(name, count is not None, owner, self._caches)
        while asyncio.get_running_loop().time() < until_s:
            done.gateways, done.edges = await self._missing(count or 0), self._purger.owing()
            done.kept = count is not None and self._is_kept(name, count, killed=True)
            if done.kept and not done.gateways and not done.edges:
                break
            await asyncio.sleep(0.05)
        return done

    async def lift(self, name: str) -> None:
        """Let be shown again what is published; a database that is not told of it, waiting DONE_S at most, is told later.

        Raises Problem 404, 503.
        """
        until_s = asyncio.get_running_loop().time() + DONE_S
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                gone, _, count = await pipe.hdel(KILLS, name).set(LAST, uuid.uuid4().hex).incr(COUNT).execute()
        except (RedisError, OSError):
            raise unavailable() from None
        if not gone:
            raise Problem("not-found", 404, "It is not killed")
        self._take(self._knowledge.kills - {name})
        while asyncio.get_running_loop().time() < until_s:
            if self._is_kept(name, count, killed=False):
                break
            await asyncio.sleep(0.05)

    def _is_kept(self, name: str, count: int, *, killed: bool) -> bool:
        """Whether the database has this change of the list, which has been read since."""
        return self._copy.number >= count and (name in self._copy.names) is killed and self._kept.has(self._copy)

    async def ask_owners(self) -> bool:
        """Ask again who was away when something was killed; once, for what is put on again later is not ours."""
        owed = [(name, kill) for name, kill in self._copy.names.items() if kill.owed]
        away = set[str]()
        for name, kill in owed:
            kind = name.partition(":")[0]
            if kind not in away and await self._switch_off(name, Actor(kill.by, kill.owed)) == "away":
                away.add(kind)
            if kind not in away:
                await self._owe(name, kill, "")
        return False

    async def _owe(self, name: str, kill: kills.Kill, role: str) -> int | None:
        """Write down as which role its owner is still to be asked, unless it was changed since; the number of this change."""
        was, owed = msgspec.json.encode(kill), msgspec.json.encode(msgspec.structs.replace(kill, owed=role))
        try:
            count = await self._redis.eval(CHANGE, 3, KILLS, LAST, COUNT, name, was, owed, uuid.uuid4().hex)
        except (RedisError, OSError):
            return None
        return int(count) or None

    async def _store(self, name: str, kill: kills.Kill) -> int | None:
        """The number of this change of the list; None when it could not be made."""
        said = msgspec.json.encode(kill)
        try:
            count = await self._redis.eval(ADD, 3, KILLS, LAST, COUNT, name, said, MOST_KILLED, uuid.uuid4().hex)
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
        if answer.is_server_error:
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


def _named(listed: Mapping[bytes, bytes]) -> dict[str, kills.Kill]:
    """The kills of a list; whatever else stands in it is none."""
    parts = ((_text(name).partition(":"), said) for name, said in listed.items())
    return {name: kills.kill_of(said) for (kind, _, key), said in parts if (name := kills.name_of(kind, key))}


def _killed(name: str, kill: kills.Kill) -> dict[str, Any]:
    kind, _, key = name.partition(":")
    return {"kind": kind, "key": key, "by": kill.by, "at_ms": kill.at_ms, "owed": bool(kill.owed)}


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
