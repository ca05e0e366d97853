"""Called by whatever has to know who somebody is: their audience document, remembered as long as it is true."""

from __future__ import annotations

from typing import NamedTuple
from weakref import ReferenceType, ref

import msgspec
from chassis.pipe import Pipe, PipeUnavailable
from contracts import audience

from gateway.domain import membership
from gateway.domain.answer import Answer
from gateway.domain.dimensions import Seen
from gateway.domain.membership import Known
from gateway.domain.targeting import Definitions, Plan

KEY, MARK = b"aud:", audience.MARK.encode()  # of documents; stands where they do, as long as all do
EVER_MS = 1 << 62
NOTHING = Known(Seen(0))  # until somebody asks


class Person:
    """A document as it was read, or that there is none, and what it says until something of it changes by itself."""

    __slots__ = ("_definitions", "_document", "_from_ms", "_known", "_last", "_readable", "_until_ms")

    def __init__(self, stored: bytes | None, era: bytes | None) -> None:
        """From what stands in Redis, and the era of which all documents do: without it none counts, and nobody is known to have
        none. One of an era before is none: what its database knew was lost.
        """
        self._document, self._readable = None, era is not None
        try:
            if stored is not None and era is not None and audience.era_of(stored) >= int(era):
                self._document = audience.decode(stored[audience.VERSION_BYTES :])
        except (msgspec.DecodeError, ValueError):  # of a text that is no UTF-8, too
            self._readable = False
        self._definitions: Definitions | None = None
        self._known = NOTHING
        self._from_ms = self._until_ms = 0
        self._last: ReferenceType[Answer] | None = None

    def known(self, definitions: Definitions, identity: bytes, now_ms: int) -> Known:
        """What is known of them at an instant."""
        if definitions is self._definitions and self._from_ms <= now_ms < self._until_ms:
            return self._known
        if self._readable:
            found = membership.known_of(definitions, identity, self._document, now_ms)
        else:
            found = membership.unknown(definitions, identity)
        self._known, self._definitions, self._last = found, definitions, None
        self._from_ms, self._until_ms = now_ms, EVER_MS if found.until is None else found.until
        return found

    def last(self, plan: Plan, now_ms: int) -> Answer | None:
        """What they were answered by this very plan, while nothing of them, or of the answer, is over."""
        answer = None if self._last is None else self._last()
        if answer is None or answer.plan is not plan or not self._from_ms <= now_ms < min(self._until_ms, answer.until):
            return None
        return answer

    def answered(self, answer: Answer) -> None:
        """For next time; as long as it is remembered anyway."""
        self._last = ref(answer)


class Who(NamedTuple):
    """An identity, if there is one, and who that is; None: their document could not be had.

    What is known of them is a matter of the definitions one answers by: whoever waited for something in between asks again.
    """

    identity: bytes | None = None
    person: Person | None = None

    def known(self, definitions: Definitions, now_ms: int) -> Known:
        """What is known of them at an instant. A stranger, and nobody at all, is an empty profile."""
        if self.identity is None:
            return membership.known_of(definitions, None, None, now_ms)
        if self.person is None:
            return membership.unknown(definitions, self.identity)
        return self.person.known(definitions, self.identity, now_ms)


def remembered(pipe: Pipe[Person], identity: bytes | None) -> Who | None:
    """Who it is, without asking; None: `look_up` asks."""
    if identity is None:
        return Who()
    person = pipe.remembered(KEY + identity)
    return None if person is None else Who(identity, person)


async def look_up(pipe: Pipe[Person], identity: bytes | None) -> Who:
    """Who it is."""
    found = remembered(pipe, identity)
    if found is None and identity is not None:
        try:
            found = Who(identity, await pipe.get(KEY + identity))
        except PipeUnavailable:
            found = Who(identity)
    assert found is not None
    return found
