"""The law of sharing: whoever is answered with one copy would have been answered the same."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from conditions.context import FIELDS
from gateway.domain import dimensions
from gateway.domain.dimensions import CLOCK, FACTS, GUEST, IN_THE_URL, MOST_CODES, OWN, PAGE, Dimension, Seen
from gateway.domain.sharing import BASE, Proof, proof, said, shareable
from gateway.domain.signing import Ring
from gateway.domain.targeting import definitions_of, plan
from hypothesis import given
from hypothesis import strategies as st

SEGMENTS, GROUPS = 30, (GUEST, "Wholesale", "VIP", "wholesale", "ñ", "\ud800")
SECRET, OLD = "s" * 32, "o" * 40
PLACES = ("DE", "AT", "de", "Ä", "x.y=z", "a|b", "")

members = st.frozensets(st.integers(0, SEGMENTS - 1), max_size=4)
facts = st.dictionaries(st.sampled_from(FACTS), st.sampled_from(PLACES))
people = st.builds(
    lambda inside, group, logged_in, known, page: Seen(sum(1 << i for i in inside), group, logged_in, known, page),
    members, st.sampled_from(GROUPS), st.booleans(), facts, st.dictionaries(st.sampled_from(PAGE), st.sampled_from(PLACES)),
)  # fmt: skip
asked = st.sampled_from([*FACTS, *PAGE, "logged_in", "locale", "hour"])
residuals = st.lists(st.tuples(asked, st.integers(0, SEGMENTS - 1)), max_size=3)


def planned(empty: int, durable: frozenset[int], late: list[tuple[str, int]], groups: frozenset[str]) -> Any:
    """The plan of a slot that these segments and groups matter to; a late one is a bit or a field of the request."""
    common = {"websites": [], "changes": []}
    segments = [
        {"id": i, "key": f"s{i}", "atom": i, "epoch": 0, "since": 0, "residual": None, **common}
        for i in range(SEGMENTS)
    ]
    for number, (name, bit) in enumerate(late):
        field = {"context": name, "op": "eq", "value": {"logged_in": True, "hour": 3}.get(name, "DE")}
        tree = {"any": [{"atom": bit}, field]}
        segments.append(
            {
                "id": 100 + number,
                "key": f"late{number}",
                "atom": None,
                "epoch": 0,
                "since": 0,
                "residual": tree,
                **common,
            }
        )
    unseen = dict.fromkeys(("visitor", "customer"), empty.to_bytes(8, "little").hex())
    found = definitions_of({"version": 1, "empty": unseen, "segments": segments, "changes": []})
    keys = [*(f"s{i}" for i in durable), *(f"late{n}" for n in range(len(late)))]
    audience = {"websites": [], "segments": keys, "groups": sorted(groups), "boundaries": []}
    others = {"websites": ["other"], "segments": ["s0"], "groups": ["others'"], "boundaries": [1]}
    slot = {"websites": [], "audiences": [audience, others], "locales": ["*"]}
    return plan(found, {"slots": {"top": slot}}, {"rules": []}, website="main", slots=["top"], locale="*", release=1)


empties = st.integers(0, (1 << SEGMENTS) - 1)
shapes = st.tuples(members, residuals, st.frozensets(st.sampled_from(GROUPS), max_size=3))
plans = st.builds(lambda empty, shape: planned(empty, *shape), empties, shapes)


def matters(made: Any, seen: Seen) -> Any:
    """All that an answer of a plan can depend on, found without its dimensions."""
    bits = [seen.atoms >> ref.atom & 1 for ref in made.durable]
    late = [leaf for ref in made.late for leaf in ref.depends_on]
    inside = [seen.atoms >> d.atom & 1 for d in late if d.atom is not None]
    fields = [
        seen.logged_in if d.name == "in" else {**seen.facts, **seen.page}.get(d.name, "")
        for d in late
        if d.atom is None
    ]
    return bits, inside, fields, seen.group if made.groups else ""


class TestLaw:
    @given(plans, people, people)
    def test_who_shares_a_copy_differs_in_nothing_that_matters(self, made: Any, one: Seen, other: Seen) -> None:
        for who, another in ((one, other), (other, one)):
            proven = Proof(made.mask, dimensions.audience(made.dimensions, who), "1")
            if shareable(made, who, proven) and shareable(made, another, proven):
                mine, others = matters(made, who), matters(made, another)
                named = {d.name for d in made.groups}
                assert mine[:3] == others[:3]
                # Groups that are not named are all the same to the answer.
                assert {g for g in named if _is(g, who.group)} == {g for g in named if _is(g, another.group)}

    @given(empties, shapes, people)
    def test_the_base_is_shared_only_as_a_stranger_sees_it(self, empty: int, shape: Any, who: Seen) -> None:
        base, made, stranger = Proof(BASE, "", "1"), planned(empty, *shape), Seen(empty)
        if shareable(made, who, base):
            assert matters(made, who)[:3] == matters(made, stranger)[:3]
        assert shareable(made, stranger, base) == all(d.name not in PAGE for d in made.dimensions)

    @given(
        plans, people, st.sampled_from(["", ".", "*", ".s1.", BASE]), st.sampled_from(["", "s1.", "g.", "country=DE."])
    )
    def test_without_the_right_proof_nothing_is_shared(self, made: Any, who: Seen, mask: str, values: str) -> None:
        assert not shareable(made, who, None)
        right = (made.mask, dimensions.audience(made.dimensions, who))
        if mask != BASE and (mask, values) != right:
            assert not shareable(made, who, Proof(mask, values, "1"))
        if made.mask.startswith(OWN):
            assert not shareable(made, who, Proof(*right, "1"))


def _is(code: str, group: str) -> bool:
    return (code == "g" and group != GUEST) or any(code == d.name for d in [dimensions.group(group)] if code != "g")


class TestRows:
    def test_every_field_of_a_request_has_one_place(self) -> None:
        for name in FIELDS:
            found = dimensions.asked(name)
            assert (found is None) == (name in (*IN_THE_URL, *CLOCK))
        with pytest.raises(ValueError, match="nothing is known"):
            dimensions.asked("moon")

    def test_more_codes_than_an_edge_compares_are_nobodys_mask(self) -> None:
        codes: list[Dimension] = [dimensions.member(f"s{i}", i, 0) for i in range(MOST_CODES + 1)]
        assert dimensions.mask(codes[:-1]).count(".") == MOST_CODES + 1
        assert dimensions.mask(codes) == OWN

    def test_what_has_too_many_codes_is_shared_among_strangers_alone(self) -> None:
        made = planned(0, frozenset(range(SEGMENTS)), [], frozenset())
        assert made.mask == OWN
        assert shareable(made, Seen(0), Proof(BASE, "", "1"))
        assert not shareable(made, Seen(1), Proof(OWN, dimensions.audience(made.dimensions, Seen(1)), "1"))

    def test_groups_that_differ_have_codes_that_differ_and_are_safe_in_a_mask(self) -> None:
        codes = {name: dimensions.group(name).name for name in GROUPS}
        assert len(set(codes.values())) == len(GROUPS)
        assert all(code.isalnum() and code.isascii() for code in codes.values())


class TestProof:
    def test_it_is_for_one_url_one_key_one_mask_and_one_audience(self) -> None:
        ring = Ring(f"2:{SECRET},1:{OLD}")
        right = {"mask": ".s1.", "audience": "s1.", "key": "k", "url": "/v1/decisions?slots=top"}
        for key_id, secret in (("2", SECRET), ("1", OLD)):
            text = said(right["mask"], right["audience"], right["key"], right["url"]).encode()
            made = urlsafe_b64encode(hmac.digest(secret.encode(), text, "sha256")).decode().rstrip("=")
            assert proof(ring, key_id=key_id, signature=made, **right) == Proof(".s1.", "s1.", key_id)
            for name, value in right.items():
                assert proof(ring, key_id=key_id, signature=made, **{**right, name: value + "x"}) is None
            for other in ("3", "", "1" if key_id == "2" else "2"):
                assert proof(ring, key_id=other, signature=made, **right) is None
            for forged in ("", made[:-1], made[:-1] + "é", "\x00"):
                assert proof(ring, key_id=key_id, signature=forged, **right) is None

    def test_the_base_has_no_audience(self) -> None:
        ring = Ring(f"1:{SECRET}")
        for values, genuine in (("", True), ("s1.", False)):
            text = said(BASE, values, "k", "/u")
            made = proof(
                ring, key_id="1", mask=BASE, audience=values, signature=ring.signature(text), key="k", url="/u"
            )
            assert (made is not None) == genuine


class TestRing:
    @pytest.mark.parametrize(
        "text", ["", "1", "1:short", f"1:{SECRET},", f"A:{SECRET}", f"1:{SECRET}\n", f"1:{'s' * 201}"]
    )
    def test_what_is_no_list_of_keys_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="id:secret" if text else "a key is needed"):
            Ring(text)

    def test_the_first_key_signs_and_every_one_is_accepted(self) -> None:
        old, both, new = Ring(f"1:{OLD}"), Ring(f"2:{SECRET},1:{OLD}"), Ring(f"2:{SECRET}")
        assert both.newest == "2"
        assert both.signature("text") == new.signature("text") != old.signature("text")
        assert both.genuine("1", "text", old.signature("text"))
        assert not new.genuine("1", "text", old.signature("text"))
