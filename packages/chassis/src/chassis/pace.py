"""Waiting: how long before the next try, and until something happens."""

from __future__ import annotations

import asyncio
import random

MOST_DOUBLINGS = 16


def pause_s(failures: int, *, base_s: float, most_s: float) -> float:
    """Seconds after so many failures in a row: doubling, bounded, and a little different for everybody."""
    longest = min(most_s, base_s * 2.0 ** min(failures, MOST_DOUBLINGS))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


async def pause_of(seconds: float, *events: asyncio.Event) -> None:
    """Wait so long, or until one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
