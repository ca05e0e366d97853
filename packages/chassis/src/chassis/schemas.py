"""Fields that bodies of several services have, each with its bounds."""

from __future__ import annotations

from functools import cache
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

from chassis.websites import NAME

# Epoch ms of the years 2000 to 9999.
Instant = Annotated[int, Field(strict=True, ge=946_684_800_000, le=253_402_300_799_999)]
Website = Annotated[str, Field(pattern=f"^{NAME}$")]
MOST_KILLED = 500  # names of what nobody is shown or given, whatever is published
MOST_KILLED_ASKED = 10 * MOST_KILLED  # of a Redis that lost some, the copies of all gateways together are the list
# The version of everything published; none is the newest.
Version = Annotated[int, Field(strict=True, ge=1, le=2**53)] | None


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _known(value: str) -> str:
    if value not in _zones():
        raise ValueError("not a time zone; they are called like Europe/Berlin")
    return value


Zone = Annotated[str, Field(max_length=60), AfterValidator(_known)]
