"""Lists and histories are answered in pages, bounded by number and by bytes.

A route answers one as a JSONResponse: FastAPI takes over a second to look through a megabyte that it is to encode itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query

MOST_BYTES = 1 << 20  # of a page; one thing that is larger is a page of its own
LIMIT, MOST = 100, 500
Limit = Annotated[int, Query(ge=1, le=MOST, description="how many at most; a page has fewer when they are large")]
After = Annotated[str, Query(max_length=200, description="`next` of the page before")]
AfterVersion = Annotated[int | None, Query(ge=0, lt=2**31, description="`next` of the page before")]


def cut(found: Sequence[Any], limit: int, mark: str) -> tuple[list[Any], Any]:
    """(the marks of the rows that make a page, the mark behind which the next one begins: None at the end).

    `found`: the rows to come, with their `bytes`, one more than the limit if there are so many.
    """
    marks: list[Any] = []
    room = MOST_BYTES
    for row in found[:limit]:
        room -= row["bytes"]
        if marks and room < 0:
            break
        marks.append(row[mark])
    return marks, marks[-1] if len(marks) < len(found) else None
