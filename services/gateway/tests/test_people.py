"""What is known of somebody: by their document, without one, and by one that nobody can read."""

from __future__ import annotations

import msgspec
import pytest
from chassis.cache import versioned
from contracts import audience
from gateway.domain.membership import NOTHING_SAID
from gateway.domain.targeting import definitions_of
from gateway.flows.people import Person
from rigged import release

NOBODY = definitions_of(release(1)[0])
WHOLE = audience.encode(audience.Audience(audience.FORMAT, 3, b"\1", [(1000, b"\2")], "trade", 0, 2000, True))


@pytest.mark.parametrize(
    "stored",
    [
        b"", b"\0" * 8, versioned(1, WHOLE[:-1]), versioned(1, WHOLE.replace(b"trade", b"\xff\xfe\xfd\xfc\xfb")),
        versioned(1, msgspec.msgpack.encode([2, *msgspec.msgpack.decode(WHOLE)[1:]])), versioned(1, b"\xc0"),
    ],
)  # fmt: skip
def test_of_whom_nobody_can_read_anything_nothing_is_said(stored: bytes) -> None:
    known = Person(stored).known(NOBODY, b"v:a", 0)
    assert (known.epoch, known.atoms, known.group) == (NOTHING_SAID, 0, "guest")


def test_what_a_document_says_holds_until_it_says_otherwise_and_not_before_it_was_asked() -> None:
    person = Person(versioned(1, WHOLE))
    for now_ms, atoms, until in ((1500, 2, 2000), (0, 1, 1000), (999, 1, 1000), (1000, 2, 2000), (2500, 2, 2000)):
        known = person.known(NOBODY, b"v:a", now_ms)
        assert (known.atoms, known.until, known.epoch, known.group, known.logged_in) == (atoms, until, 3, "trade", True)


def test_who_has_none_is_as_anybody_whom_nobody_saw() -> None:
    assert Person(None).known(NOBODY, b"c:a", 0).logged_in
    assert not Person(None).known(NOBODY, b"v:a", 0).degraded
