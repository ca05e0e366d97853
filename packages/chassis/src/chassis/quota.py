"""How much of each kind may be stored, in bytes: a service keeps what is live in memory, so there is only so much of it.

What counts is about what it takes there: the JSON in UTF-8, VALUE_BYTES for each value, object and list in it, however short, and
OWN_BYTES for each body. Its `status` does not count: what is full keeps nobody from switching something off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chassis.db import Tx
from chassis.problems import Problem
from chassis.websites import touched

OWN_BYTES, VALUE_BYTES = 1024, 64
EVERY = ""  # the share of what is of all websites
# $1: names of shares. What is of several websites counts with each of them in full.
SHARES = """WITH stored AS ({stored})
    SELECT name, sum(bytes)::bigint AS bytes
    FROM stored, unnest(CASE WHEN websites = '{{}}' THEN '{{""}}' ELSE websites END) AS name
    WHERE name = ANY($1::text[]) GROUP BY name
    UNION ALL SELECT NULL, coalesce(sum(bytes), 0)::bigint FROM stored"""


def text_of(body: Any) -> str:
    """A body as it is stored."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _values(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_values, inside))


def size(body: Mapping[str, Any]) -> int:
    """The bytes that a body counts with."""
    text = text_of({**body, "status": ""})
    return OWN_BYTES + len(text.encode()) + VALUE_BYTES * _values(body)


@dataclass(frozen=True, slots=True)
class Quota:
    """The most bytes of a kind: of `one`, of those of a `website` (or of those of all websites), and of `all` of them.

    `part` is what makes one large, as a pointer; `weigh` says with how many bytes a body counts.
    """

    kind: str
    one: int
    website: int
    all: int
    part: str
    weigh: Callable[[Mapping[str, Any]], int] = size

    async def check(self, tx: Tx, new: Mapping[str, Any], old: Any, others: str, *args: Any) -> None:
        """Raises Problem 422 too-large, 409 quota-full, for what is to be larger than what it replaces and has no room.

        `others`: a statement for (websites, bytes) of everything else of the kind, with `args` from $2 on.
        """
        more, before, had = self.weigh(new), 0, dict[str, int]()
        if isinstance(old, dict):
            before = self.weigh(old)
            had = dict.fromkeys(touched(old) or [EVERY], before)
        if more > max(self.one, before):
            detail = f"it has at most {self.one // 1024} KiB, and comes to {-(-more // 1024)} KiB"
            raise Problem("too-large", 422, f"The {self.kind} is too large", errors=[_error(self.part, detail)])
        wanted = touched(new) or [EVERY]
        found = await tx.fetch(SHARES.format(stored=others), wanted, *args)
        used = {row["name"]: row["bytes"] for row in found}
        for number, name in enumerate(wanted):
            if more > had.get(name, 0) and used.get(name, 0) + more > self.website:
                whose = f"website {name}" if name else "all websites"
                raise self._full(f"/websites/{number}" if name else "/websites", whose, self.website)
        if more > before and used[None] + more > self.all:
            raise self._full(self.part, "everybody", self.all)

    def _full(self, pointer: str, whose: str, most: int) -> Problem:
        detail = f"the {self.kind}s of {whose}, drafts too, come to at most {most // 1024} KiB together: delete some"
        return Problem("quota-full", 409, f"There is no room for this {self.kind}", errors=[_error(pointer, detail)])


def _error(pointer: str, detail: str) -> dict[str, str]:
    return {"pointer": pointer, "detail": detail}
