"""What is known of somebody: by their document, without one, and by one that nobody can read."""

from __future__ import annotations

import gc
from dataclasses import replace

import msgspec
import pytest
from chassis.cache import versioned
from contracts import audience
from gateway.domain.answer import Answer, finish
from gateway.domain.dimensions import Seen
from gateway.domain.release import release_of
from gateway.domain.targeting import LOGIN_SAID, NOTHING_SAID, Plan, definitions_of
from gateway.flows.people import Person
from rigged import release, slot

NOBODY = definitions_of(release(1)[0])
WHOLE = audience.encode(audience.Audience(audience.FORMAT, 3, b"\1", ((1000, b"\2"),), "trade", 0, 2000, True))


@pytest.mark.parametrize(
    "stored",
    [
        b"", b"\0" * 8, versioned(1, WHOLE[:-1]), versioned(1, WHOLE.replace(b"trade", b"\xff\xfe\xfd\xfc\xfb")),
        versioned(1, msgspec.msgpack.encode([2, *msgspec.msgpack.decode(WHOLE)[1:]])), versioned(1, b"\xc0"),
    ],
)  # fmt: skip
def test_of_whom_nobody_can_read_anything_nothing_is_said(stored: bytes) -> None:
    for identity, epoch in ((b"v:a", NOTHING_SAID), (b"c:a", LOGIN_SAID)):  # a token says that it is a customer
        known = Person(stored, b"0").known(NOBODY, identity, 0)
        assert (known.epoch, known.seen.atoms, known.seen.group, known.degraded) == (epoch, 0, "guest", True)


def test_what_a_document_says_holds_until_it_says_otherwise_and_not_before_it_was_asked() -> None:
    person = Person(versioned(1, WHOLE), b"0")
    for now_ms, atoms, until in ((1500, 2, 2000), (0, 1, 1000), (999, 1, 1000), (1000, 2, 2000), (2500, 2, 2000)):
        known = person.known(NOBODY, b"v:a", now_ms)
        assert (known.seen, known.until, known.epoch) == (Seen(atoms, "trade", logged_in=True), until, 3)


def test_who_has_none_is_as_anybody_whom_nobody_saw() -> None:
    assert Person(None, b"0").known(NOBODY, b"c:a", 0).seen.logged_in
    assert not Person(None, b"0").known(NOBODY, b"v:a", 0).degraded


def test_while_not_all_documents_are_there_nobody_is_known_to_have_one_or_none() -> None:
    for stored in (None, versioned(1, WHOLE)):
        assert Person(stored, None).known(NOBODY, b"v:a", 0).degraded


def test_a_document_of_an_era_before_is_none() -> None:
    for era, atoms in ((1, 0), (2, 1), (3, 1)):
        known = Person(versioned(audience.dated(era, 7), WHOLE), b"2").known(NOBODY, b"v:a", 0)
        assert (known.seen.atoms, known.degraded) == (atoms, False)


class TestLast:
    """An answer is given once more to a person only as long as all it was made of holds."""

    @pytest.fixture
    def made(self) -> tuple[Plan, Answer]:
        known = release_of(*release(1, top=slot()))
        plan = known.plan("main", ["top"], "*")
        merged = {"slots": {"top": {"fallback": True, "blocks": []}}, "messages": []}
        return plan, finish(plan, merged, (), now_ms=100, most_s=60)

    def test_by_the_same_plan_while_the_document_says_the_same(self, made: tuple[Plan, Answer]) -> None:
        (plan, answer), person = made, Person(versioned(1, WHOLE), b"0")
        assert person.last(plan, 100) is None
        person.known(NOBODY, b"v:a", 100)
        person.answered(answer)
        assert [person.last(plan, now_ms) is answer for now_ms in (99, 100, 999, 1000)] == [False, True, True, False]
        assert person.last(replace(plan), 100) is None, "of another release, it may be"

    def test_what_is_found_out_anew_of_them_is_answered_anew(self, made: tuple[Plan, Answer]) -> None:
        (plan, answer), person = made, Person(versioned(1, WHOLE), b"0")
        person.known(NOBODY, b"v:a", 100)
        person.answered(answer)
        person.known(NOBODY, b"v:a", 1500)  # as somebody else who asks for them may
        assert person.last(plan, 1500) is None

    def test_no_longer_than_the_answer_lives_and_it_is_kept_alive_by_nobody(self, made: tuple[Plan, Answer]) -> None:
        plan, answer = made[0], replace(made[1])
        person = Person(None, b"0")
        person.known(NOBODY, b"v:a", 100)
        person.answered(answer)
        assert [person.last(plan, now_ms) is answer for now_ms in (answer.until - 1, answer.until)] == [True, False]
        del answer
        gc.collect()
        assert person.last(plan, 100) is None
