"""Regular expressions in linear time (RE2). A pattern looks at the first 200 characters of a text, in the NFC form.

Text compares without regard to case, as far as one letter stands for one (`ß` is not `ss` here); a code exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import re2

from conditions.values import composed, storable

MOST_PATTERN, MOST_LOOKED_AT = 200, 200
# Together these bound what one look may cost at the very worst: a fifth of a millisecond, so that two hundred events kept of a
# type cost less than 50 ms, and two mebibytes.
MOST_INSTRUCTIONS, MOST_MEMORY = 128, 2 << 20


_watch: ContextVar[Callable[[], None]] = ContextVar("watch", default=lambda: None)


@contextmanager
def watched(check: Callable[[], None]) -> Iterator[None]:
    """Have `check` called before every look: what it raises ends the evaluation that looks too long."""
    token = _watch.set(check)
    try:
        yield
    finally:
        _watch.reset(token)


class BadPattern(ValueError):
    """The pattern cannot be used; the message says why."""


@lru_cache(maxsize=256)
def pattern(source: str, exact: bool) -> Callable[[str], bool]:
    """Whether a text has a match of the pattern anywhere. Raises BadPattern."""
    if not 0 < len(source) <= MOST_PATTERN:
        raise BadPattern(f"a pattern has 1 to {MOST_PATTERN} characters")
    if not storable(source):
        raise BadPattern("a text has no NUL and no half of a character")
    options = re2.Options()
    options.log_errors, options.never_capture = False, True
    options.case_sensitive, options.max_mem = exact, MOST_MEMORY
    try:
        compiled = re2.compile((source if exact else composed(source)).encode(), options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it cannot be read"
        raise BadPattern(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None
    if compiled.programsize > MOST_INSTRUCTIONS:
        raise BadPattern("its repeats make it too large")
    search = compiled.search

    def matches(value: str) -> bool:
        _watch.get()()
        looked_at = value[:MOST_LOOKED_AT]
        if not exact and not looked_at.isascii():
            looked_at = composed(looked_at)
        return search(looked_at.encode(errors="replace")) is not None

    return matches
