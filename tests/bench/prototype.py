"""The inner loop of ingest as a prototype writes it: no Kafka, no deduplication, no timers, flat counters, small state."""

from __future__ import annotations

import random
import time
from typing import Any

import asyncpg
import msgspec
import redis.asyncio as aioredis

from tests.bench.shop import SEGMENTS

BATCH = 2000
FIELDS = {"orders": 20, "ltv": 99_999, "cart_total": 30_000, "views_7d": 40, "sessions_30d": 30}
WRITE = """INSERT INTO ing SELECT 't', v, $2, s FROM unnest($1::text[], $3::bytea[]) u (v, s)
    ON CONFLICT (tenant, vid) DO UPDATE SET ver = EXCLUDED.ver, state = EXCLUDED.state"""
TABLE = """DROP TABLE IF EXISTS ing; CREATE TABLE ing (tenant text, vid text, ver bigint, state bytea,
    PRIMARY KEY (tenant, vid)) WITH (fillfactor = 70)"""


class Flat(msgspec.Struct):
    """One message."""

    type: str
    ts: int
    visitor: str
    sku: str
    cat: str
    price: int = 0
    country: str = "DE"
    device: str = "mobile"


def _new() -> dict[str, Any]:
    return {
        "orders": 0, "ltv": 0, "sessions_30d": 1, "cart_total": 0, "country": "DE", "device": "mobile", "views_7d": 0,
        "cats": {}, "days": {}, "recent": [], "seg": 0,
    }  # fmt: skip


def _fold(state: dict[str, Any], event: Flat) -> None:
    if event.type == "view":
        state["views_7d"] += 1
        state["cats"][event.cat] = state["cats"].get(event.cat, 0) + 1
        if len(state["cats"]) > 30:
            del state["cats"][next(iter(state["cats"]))]
        state["recent"].append(event.sku)
        del state["recent"][:-12]
    elif event.type == "cart":
        state["cart_total"] += event.price
    else:
        state["orders"] += 1
        state["ltv"] += event.price
        state["cart_total"] = 0
    day = str(event.ts // 86_400_000)
    state["days"][day] = state["days"].get(day, 0) + 1


def _rules() -> Any:
    """20 segments of four comparisons as one generated function."""
    rng, lines = random.Random(5), ["def rules(p):", "    bits = 0"]
    lines += [f"    {name} = p[{name!r}]" for name in FIELDS]
    for number in range(SEGMENTS):
        names = rng.choices(list(FIELDS), k=4)
        a, b, c, d = (f"{name} {rng.choice(['<', '<=', '>', '>='])} {rng.randrange(FIELDS[name])}" for name in names)
        lines.append(f"    if {a} and {b} and ({c} or {d}): bits |= {1 << number}")
    scope: dict[str, Any] = {}
    exec("\n".join([*lines, "    return bits"]), scope)
    return scope["rules"]


async def run(url: str, redis_url: str, messages: list[bytes]) -> float:
    """Events per second."""
    connection, client, rules = await asyncpg.connect(url), aioredis.from_url(redis_url), _rules()
    await connection.execute(TABLE)
    decode, encode = msgspec.json.Decoder(Flat).decode, msgspec.json.Encoder().encode
    load = msgspec.json.Decoder().decode
    began = time.perf_counter()
    for start in range(0, len(messages), BATCH):
        by: dict[str, list[Flat]] = {}
        for message in messages[start : start + BATCH]:
            event = decode(message)
            by.setdefault(event.visitor, []).append(event)
        found = {
            r["vid"]: load(r["state"])
            for r in await connection.fetch("SELECT vid, state FROM ing WHERE tenant = 't' AND vid = ANY($1)", list(by))
        }
        moved = {}
        for visitor, events in by.items():
            state = found.setdefault(visitor, _new())
            for event in events:
                _fold(state, event)
            bits = rules(state)
            if bits != state["seg"]:
                state["seg"] = bits
                moved[f"seg:{visitor}"] = bits
        await connection.execute(WRITE, list(by), start, [encode(found[v]) for v in by])
        if moved:
            await client.mset(moved)
    seconds = time.perf_counter() - began
    await connection.close()
    await client.aclose()
    return len(messages) / seconds
