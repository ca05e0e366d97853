"""What a rule names is checked against what exists; whatever is accepted can be run for everybody, read and written."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from conditions import Fault, Invalid, LeafType, Vocabulary, from_text, parse, to_json, to_text
from conditions.kinds import CATEGORY, CODE, NUMBER, OPEN, TEXT
from conditions.patterns import watched
from contracts.codec import MESSAGES
from contracts.fields import MOST_LIST
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_svc.domain import bounds, facts, part, probes
from segment_svc.domain import profile as people
from segment_svc.domain.activity import unpack
from segment_svc.domain.definition import Definition, references, renamed
from segment_svc.domain.event_fields import EVENTS, LINE, open_kind
from segment_svc.domain.facts import Facts
from segment_svc.domain.probes import run_probes
from segment_svc.domain.vocabulary import vocabulary

NOW, DAY = 1_795_000_000_000, 86_400_000
ZONE = ZoneInfo("Europe/Berlin")
WORDS = vocabulary((), ZONE, {})

ON_SKU = {"field": "sku", "op": "eq", "value": "A"}
SHAPES: dict[str, dict[str, Any]] = {
    "attribute": {"attribute": "tier", "op": "in", "value": ["gold", 2]},
    "events": {
        "events": {"type": "product_view", "count": {"op": "gte", "value": 1}, "window": {"last": "P1D"}, "where": ON_SKU}
    },
    "last_event": {
        "last_event": {"type": "custom.quiz", "where": ON_SKU, "has": {"any": [ON_SKU, {"field": "a.b", "value": 1}]}}
    },
    "orders": {
        "orders": {"measure": "sum", "op": "gt", "value": 1, "field": "subtotal",
                   "window": {"from": "2026-01-01", "to": "2026-12-31"},
                   "where": {"all": [{"field": "items.sku", "value": "A"}, {"field": "items.quantity", "op": "gt", "value": 1}]}}
    },
    "days_since": {
        "days_since": {"of": "last_order", "mode": "calendar", "op": "gt", "value": 1, "if_never": True,
                       "where": {"field": "status", "op": "ne", "value": "lost"}}
    },
    "cart": {"cart": {"field": "subtotal", "op": "gt", "value": 1.5}},
    "list": {"list": {"name": "cart", "found": True, "where": ON_SKU}},
    "group": {"group": {"op": "in", "values": ["g1"]}},
    "segment": {"segment": {"op": "in", "keys": ["other"]}},
    "context": {"context": "country", "op": "regex", "value": "^de"},
}  # fmt: skip
ODD_WORDS = [
    "",
    "x",
    "in",
    "sku",
    "placed",
    "P3D",
    "P" + "9" * 40 + "W",
    "P٣D",
    "P1D\n",
    "sum",
    "2026-01-01",
    "9999-12-31",
    "1",
    "\ud800",
    "a.b",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([10**29, 10**31, -(10**40), 0.1, 1e300, float("nan"), -0.0])
    | st.sampled_from(ODD_WORDS) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["field", "op", "value", "last", "all", "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def definition(condition: Any, *, websites: tuple[str, ...] = ()) -> Definition:
    return Definition(1, "s", 1, "both", websites, condition, (), (0,))


def faults(condition: Any) -> list[Fault]:
    try:
        parse(condition, WORDS)
    except Invalid as error:
        return error.faults
    return []


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield value, name
        yield from places(inner)


def seen(where: Any, kind: str = "product_view") -> dict[str, Any]:
    return {"events": {"type": kind, "where": where}}


def orders(**more: Any) -> dict[str, Any]:
    return {"orders": {"measure": "sum", "op": "gt", "value": 1, **more}}


def since_login(**more: Any) -> dict[str, Any]:
    return {"days_since": {"of": "last_login", "op": "gt", "value": 1, **more}}


class TestTotal:
    def test_every_condition_has_its_shape_here(self) -> None:
        assert set(SHAPES) == set(WORDS.types)
        for shape in SHAPES.values():
            node = parse(shape, WORDS)
            assert hash(node) == hash(parse(copy.deepcopy(shape), WORDS))
            assert from_text(to_text(node), WORDS) == node == parse(to_json(node), WORDS)

    @settings(deadline=None, max_examples=400)
    @given(st.sampled_from(sorted(SHAPES)), st.integers(0, 30), json_values, st.sampled_from(["", "extra"]))
    def test_whatever_stands_wherever_is_refused_or_can_be_run(
        self, key: str, number: int, odd: Any, extra: str
    ) -> None:
        condition = copy.deepcopy(SHAPES[key])
        found = list(places(condition))
        holder, name = found[number % len(found)]
        holder[name + extra if isinstance(name, str) else name] = odd
        wrong = faults(condition)
        for fault in wrong:
            json.dumps(fault.detail + fault.pointer).encode()
            assert (fault.pointer + fault.detail).encode()
            assert len(fault.pointer) + len(fault.detail) < 500
        if not wrong:
            node = parse(condition, WORDS)
            hash(node)
            assert parse(json.loads(json.dumps(to_json(node))), WORDS) == node
            assert from_text(to_text(node), WORDS) == node
            assert run_probes(definition(condition), ZONE) is None

    @given(st.dictionaries(st.sampled_from(["all", "any", "not", "segment"]), json_values, max_size=2))
    def test_references_of_anything_can_be_asked_for(self, condition: dict[str, Any]) -> None:
        for name in references(condition):
            assert name in json.dumps(renamed(condition, {}), ensure_ascii=False)

    @pytest.mark.parametrize("body", [5, {}, {"keys": 5}, {"keys": "abc"}, {"keys": [5, ["x"]]}, []])
    def test_a_reference_that_cannot_be_read_is_none(self, body: Any) -> None:
        assert references({"all": [{"segment": body}, 7]}) == set()
        assert renamed({"segment": body}, {"5": "x"}) == {"segment": body}

    @pytest.mark.parametrize(
        "last", ["P", "PT", "P1DT", "P1D\n", "P1Dx", "P\u0663D", "P1M", "P-1D", "P0D", "P1.5D", 5, None, ["P1D"]]
    )
    def test_what_is_no_duration_is_refused(self, last: Any) -> None:
        assert faults({"events": {"type": "page_view", "window": {"last": last}}})

    @pytest.mark.parametrize("key", sorted(SHAPES))
    def test_what_is_saved_has_been_run(self, key: str) -> None:
        assert run_probes(definition(SHAPES[key]), ZONE) is None

    @pytest.mark.parametrize("where", ["test", "change", "seen", "json"])
    def test_a_rule_that_raises_for_somebody_is_found_before_it_is_saved(
        self, where: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Raising(LeafType):
            key, temporal = "raising", True

            def parse(self, raw: Mapping[str, Any], fail: Any) -> Any:
                return raw["raising"]

            def json(self, params: Any) -> dict[str, Any]:
                return {"raising": object() if where == "json" else params}

            def test(self, params: Any, facts: Facts, now: int) -> bool:
                return bool(
                    1 // (where != "test" or facts.profile.kind == "visitor" or len(facts.instants("login", ())) < 100)
                )

            def change(self, params: Any, facts: Facts, now: int) -> int | None:
                return 1 // (where != "change")

            def seen(self, params: Any, facts: Facts, now: int) -> Any:
                return float("nan") if where == "seen" else 1

        monkeypatch.setattr(part, "vocabulary", lambda *_: Vocabulary([Raising()]))
        fault = run_probes(definition({"raising": 1}))
        assert fault is not None
        assert (fault.pointer, fault.code) == ("", "cannot-run")
        if where == "test":
            assert fault.detail == "it cannot be decided for somebody who did very much: ZeroDivisionError"

    def test_what_takes_long_for_somebody_who_did_very_much_is_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[bytes] = []

        def unpacking(props: bytes) -> Any:
            looks.append(props)
            return unpack(props)

        monkeypatch.setattr(facts, "unpack", unpacking)
        counted = {"type": "custom.quiz", "count": {"op": "gt", "value": 3}, "where": {"field": "a", "value": "never"}}
        each = 2 * probes.DEAR_S / bounds.LIMIT  # so that only very many events take long
        fault = run_probes(definition({"events": counted}), own_time=lambda: each * len(looks))
        assert fault is not None
        assert fault.code == "cannot-run"
        assert fault.detail.startswith("it takes over 50 ms for somebody who did very much")
        assert run_probes(definition({"events": counted})) is None

    @pytest.mark.parametrize("applies_to", ["both", "visitors"])
    def test_what_stands_behind_a_condition_that_nobody_here_meets_is_weighed_too(self, applies_to: str) -> None:
        looks: list[int] = []
        names = [{"field": "name", "op": "regex", "value": f"x{n}$"} for n in range(10)]
        dear = {
            "list": {"name": "cart", "found": True, "where": {"all": [{"field": "sku", "value": "nowhere"}, *names]}}
        }
        guarded = {"all": [{"attribute": "tier", "op": "eq", "value": "gold"}, dear]}
        asked = msgspec.structs.replace(definition(guarded), applies_to=applies_to)
        with watched(lambda: looks.append(1)):
            fault = run_probes(asked, own_time=lambda: len(looks) * probes.DEAR_S / (9 * MOST_LIST))
        assert fault is not None
        assert fault.detail.startswith("it takes over 50 ms for somebody who did very much")

    def test_probes_are_people_of_every_sort(self) -> None:
        found = {sort: who for sort, who, _ in probes._people(SHAPES["last_event"])}
        full = found["somebody with one of everything"]
        assert set(EVENTS) == set(full.log)
        assert found["somebody with events dated ahead"].pending
        odd = found["somebody with odd values (0)"]
        assert "custom.quiz" in odd.log
        assert len(found["somebody who did very much"].log["custom.quiz"]) == bounds.LIMIT
        for sort in (
            "somebody who did very much",
            *(f"somebody who sent very much ({kind})" for kind in probes.DEAR_TEXTS),
        ):
            seen = Facts(found[sort])
            _, wishlist = next(seen.events("wishlist_update", (), newest_first=True))
            assert len(seen.cart()["items"]) == len(wishlist["items"]) == MOST_LIST
            assert sum(len(order["items"]) for order in seen.orders(())) == bounds.LIMIT * 10


class TestNames:
    def test_the_table_of_events_is_what_their_messages_have(self) -> None:
        def paths(message: Descriptor, prefix: str = "") -> Iterator[tuple[str, Any]]:
            for field in message.fields:
                path, of = prefix + field.name, field.message_type
                if of is None:
                    yield path, {FieldDescriptor.CPPTYPE_STRING: (TEXT, CODE, CATEGORY)}.get(field.cpp_type, (NUMBER,))
                elif of.name == "Money":
                    yield path, (NUMBER,)
                    yield "currency", (CODE,)
                elif not of.name.endswith(("Struct", "Entry")):
                    yield from paths(of, f"{path}.")

        kept_elsewhere = {*people.REGISTERS, "custom"}
        assert set(EVENTS) == {*MESSAGES, *kept_elsewhere} - {"custom"}
        for name, message in MESSAGES.items():
            expected = {} if name in kept_elsewhere else dict(paths(message.DESCRIPTOR))
            if name in people.WHOLE:  # only the newest one's lines are kept
                lines = {path: kinds for path, kinds in expected.items() if path.startswith("items.")}
                assert {path.removeprefix("items."): path in lines for path in lines}.keys() == LINE.keys()
                expected = {path: kinds for path, kinds in expected.items() if path not in lines}
                if name == "wishlist_update":
                    expected = {}
            if name not in kept_elsewhere:
                assert set(EVENTS[name]) == set(expected), name
                assert all(EVENTS[name][path] in kinds for path, kinds in expected.items()), name

    @pytest.mark.parametrize(
        ("condition", "pointer", "hint"),
        [
            ({"events": {"type": "product_veiw"}}, "/events/type", "did you mean product_view?"),
            ({"events": {"type": "signed_up"}}, "/events/type", "custom.<name>"),
            ({"events": {"type": "custom."}}, "/events/type", "is not an event type"),
            (seen({"field": "skuu", "value": "a"}), "/events/where/field", "did you mean sku?"),
            (seen([{"field": "sku", "value": 1067}]), "/events/where/0/value", "in quotes"),
            (seen({"field": "price", "op": "starts_with", "value": "1"}), "/events/where/op", "number"),
            (seen({"field": "price", "value": "1"}), "/events/where/value", "a number"),
            (seen({"any": [ON_SKU, {"field": "category", "op": "contains", "value": "x"}]}),
             "/events/where/any/1/op", "category"),
            (seen({"all": [ON_SKU], "any": [ON_SKU]}), "/events/where", "predicate"),
            (seen({"field": "items.sku", "value": "A"}, "cart_update"), "/events/where/field", "not a field"),
            (seen({"field": "tier", "value": "A"}, "identify"), "/events/where/field", "keeps no fields"),
            ({"events": {"type": "page_view", "count": {"op": "gt", "value": "1"}}}, "/events/count/value", "a number"),
            ({"events": {"type": "page_view", "count": {"op": "gt", "value": 10**30}}}, "/events/count/value", "30 digits"),
            ({"events": {"type": "page_view", "window": {"last": "P99999999999W"}}}, "/events/window/last", "ten years"),
            ({"events": {"type": "page_view", "window": {"from": "9999-12-31"}}}, "/events/window", "window"),
            (orders(field="grand_totl"), "/orders/field", "did you mean grand_total?"),
            ({"orders": {"measure": "cuont", "op": "gt", "value": 1}}, "/orders/measure", "did you mean count?"),
            (orders(where={"field": "itmes.sku", "value": "1"}), "/orders/where/field",
             "did you mean items.sku?"),
            (since_login(where=ON_SKU), "/days_since/where/field", "not a field"),
            (since_login(where={"field": "status", "value": "x"}),
             "/days_since/where", "only orders"),
            (since_login(if_never="no"), "/days_since/if_never", "true or false"),
            ({"list": {"name": "cart", "where": {"field": "items.sku", "value": "A"}}}, "/list/where/field", "not a field"),
            ({"attribute": "order_id", "op": "eq", "value": 12}, "/value", "in quotes"),
            ({"attribute": "address.postCode", "op": "in", "value": ["01067", 1067]}, "/value/1", "in quotes"),
            ({"attribute": "x", "op": "exists", "value": 1}, "/value", "no value"),
            ({"group": {"op": "in", "values": [1]}}, "/group/values/0", "a text"),
            ({"context": "logged_in", "op": "eq", "value": "true"}, "/value", "true or false"),
            ({"attribute": "x" * 100_000, "op": "eqq", "value": 1}, "/attribute", "name of"),
            ({"x" * 100_000: 1}, "", "is not a condition"),
        ],
    )  # fmt: skip
    def test_what_does_not_exist_or_suit_is_refused_where_it_stands(
        self, condition: Any, pointer: str, hint: str
    ) -> None:
        found = faults(condition)
        assert any(f.pointer == pointer and hint in f.detail for f in found), found

    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("sku", CODE), ("address.postcode", CODE), ("postCode", CODE), ("orderId", CODE), ("external_id", CODE),
            ("phone", CODE), ("email", OPEN), ("paid", OPEN), ("tier", OPEN), ("idle", OPEN), ("discount_code", CODE),
            ("skus", OPEN),
        ],
    )  # fmt: skip
    def test_well_known_names_of_codes_are_codes(self, path: str, kind: Any) -> None:
        assert open_kind(path) is kind
