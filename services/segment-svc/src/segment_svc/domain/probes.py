"""What is saved has been run: a definition is decided, explained and asked for its next change for people of every sort.

The people are made up from the table of events, and from the names the definition itself mentions: nobody yet, one of
everything, the same with odd values, and somebody who did very much.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from conditions import Fault, Node, Vocabulary, compile_set, leaves, parse, to_json
from conditions.context import FIELDS, Atom, Context
from conditions.kinds import CODE, FLAG, NUMBER, Kind

from segment_svc.domain import profile as people
from segment_svc.domain.activity import Activity, pack
from segment_svc.domain.bounds import LIMIT, MOST_CUSTOM
from segment_svc.domain.definition import Definition
from segment_svc.domain.event_fields import CUSTOM, EVENTS
from segment_svc.domain.leaves.where import written
from segment_svc.domain.part import UTC, atoms_needed
from segment_svc.domain.profile import Profile
from segment_svc.domain.ruleset import RuleRaised, RuleSet
from segment_svc.domain.vocabulary import GUARDS

NOW, HOUR_MS = 1_795_000_000_000, 3_600_000
HORIZON_MS = 400 * 24 * HOUR_MS
HUGE = 2**63 - 1
DEAR_S = 0.05
MOST_VALUES, MOST_EVENT, MOST_LINES = 100, 16 * 1024, 500  # as contracts bound what a shop makes up itself, and a list
LINE_TEXT, ORDER_LINES = 70, 10  # bytes, so that a cart is one that is kept; lines of each of very many orders
REQUEST = Vocabulary([Atom(), Context()])  # what a gateway reads of a request-dependent definition
# What the fields of an event hold: numbers, texts.
ORDINARY, EMPTY, HUGE_ONES = (12.5, "a/b"), (0, ""), (HUGE, "\U0001f600\u0301" * 2_000)
NEGATIVE = (-1, "-1")
# What a shop may put where anything may stand.
ANYTHING: tuple[Any, ...] = (
    "2026-11-24T10:00:00Z", "01067", 7, -0.5, True, None, 1e25, 5e-324, ["a", ["b", {"c": 1}], 2, None],
    {"a": [{"b": "c"}]}, [], "\U0001f600\u0301" * 1_000, [{"sku": "A"}] * 90,
)  # fmt: skip
SMALL = 11  # so many of them


# Texts that are work to look at, by themselves and, as short as they can be, many in a list.
DEAR_TEXTS: dict[str, Callable[[int], tuple[str, str]]] = {
    "words": lambda n: ((f"\u00e9{n} " * 400)[:1_900], f"\u00e9{n}"),
    "times": lambda n: (f"2026-{1 + n % 12:02}-24T10:00:00.{n:03}+01:00", f"2026-{1 + n % 12:02}-{1 + n % 28:02}"),
    "numbers": lambda n: (f"{n:029}.5", f"{n}"),
    "paths": lambda n: ("/" * 1_900 + str(n), f"/{n}"),
}


def run_probes(definition: Definition, zone: ZoneInfo = UTC, *, own_time: Callable[[], float] = float) -> Fault | None:
    """None for a checked definition that can be run for everybody; else a fault that names the kind of the exception.

    `own_time`: seconds of CPU spent so far; without it nothing takes long.
    """
    who = "anybody"
    try:
        atoms = tuple(range(atoms_needed(definition, zone)))
        rules = RuleSet.compile([msgspec.structs.replace(definition, atoms=atoms)], zone)
        for residual in rules.residuals.values():
            compile_set([(0, parse(residual, REQUEST))])
        apart = RuleSet.compile(_apart(definition, rules.trees[definition.key]), zone)
        for sort, person, context in _people(definition.condition):
            who = sort
            if any(min(_spent(weighed, person, own_time) for _ in range(2)) > DEAR_S for weighed in (rules, apart)):
                return Fault("", "cannot-run", f"it takes over {DEAR_S * 1000:.0f} ms for {who}: fewer filters will do")
            why = rules.explain(definition.key, person, NOW, who="c:probe", context=context)
            json.dumps(why, allow_nan=False)
    except RuleRaised as raised:
        return Fault("", "cannot-run", f"it cannot be decided for {who}: {raised.causes[definition.key]}")
    except Exception as error:  # whatever it is, a rule that raises must not be saved
        return Fault("", "cannot-run", f"it cannot be decided for {who}: {type(error).__name__}")
    return None


def _apart(definition: Definition, tree: Node) -> list[Definition]:
    """Every condition on a person, and every predicate of its filters, as a definition of its own: one that does not hold
    for the people here hides no other."""
    own = [leaf for leaf in leaves(tree) if not (leaf.type.context or leaf.type.chained or leaf.type.key in GUARDS)]
    return [
        msgspec.structs.replace(definition, key=f"part{number}", condition=condition, overrides=(), atoms=(number,))
        for number, condition in enumerate(single for leaf in own for single in _singly(to_json(leaf)))
    ]


def _singly(condition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A condition with each of the predicates of its filters in turn; as it is without any."""
    bodies = [(key, body) for key, body in condition.items() if isinstance(body, Mapping)]
    filters = [(key, body, name) for key, body in bodies for name in ("where", "has") if body.get(name) is not None]
    for key, body, name in filters:
        yield from ({key: {**body, name: predicate}} for predicate in written(body[name])[1])
    if not filters:
        yield condition


def _spent(rules: RuleSet, person: Profile, own_time: Callable[[], float]) -> float:
    began = own_time()
    rules.timeline(person, NOW, horizon_ms=HORIZON_MS, key="c:probe")
    return own_time() - began


def _people(condition: Any) -> Iterator[tuple[str, Profile, dict[str, Any]]]:
    """(what they are, the person, the request they make), one by one."""
    yield "a visitor nobody has seen", people.empty("visitor"), {}
    yield "a customer nobody has seen", people.empty("customer"), {}
    names = _names(condition)
    for kind, values in (("one of everything", ORDINARY), ("empty values", EMPTY), ("negative values", NEGATIVE),
                         ("huge values", HUGE_ONES)):  # fmt: skip
        yield f"somebody with {kind}", _one_of_everything(*values), _request(values[1])
    ahead = _one_of_everything(*ORDINARY)
    _fold(ahead, _all_types(*ORDINARY, NOW + HOUR_MS))
    yield "somebody with events dated ahead", ahead, {}
    for i, value in enumerate(ANYTHING):
        person = _one_of_everything(*ORDINARY)
        _fold(person, _free_events(names, value, NOW - HOUR_MS))
        yield f"somebody with odd values ({i})", person, _request(value)
    heavy = people.decode(_heavy(""))
    for n in range(LIMIT):
        _fold(heavy, _free_events(names, ANYTHING[n % SMALL], NOW - n * HOUR_MS))
    yield "somebody who did very much", heavy, {}
    for kind, text in DEAR_TEXTS.items():
        heavy, dense = people.decode(_heavy(kind)), [text(n)[1] for n in range(MOST_VALUES)]
        for n in range(LIMIT):
            _fold(heavy, _free_events(names, dense, NOW - n * HOUR_MS))
        yield f"somebody who sent very much ({kind})", heavy, {}


def _names(condition: Any) -> dict[str, set[str]]:
    """The attributes a condition mentions, and the fields of each custom type, as many as a person can have."""
    found: dict[str, set[str]] = {"": set()}
    waiting = [("", condition)]
    while waiting:
        kind, value = waiting.pop()
        if isinstance(value, Mapping):
            kind = str(value.get("type", kind))
            if isinstance(value.get("attribute"), str):
                found[""].add(value["attribute"])
            if kind.startswith(CUSTOM):
                found.setdefault(kind, set()).update(x for x in (value.get("field"),) if isinstance(x, str))
            waiting += [(kind, inner) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(kind, inner) for inner in value]
    return dict(sorted(found.items())[: MOST_CUSTOM + 1])


def _free_events(names: Mapping[str, set[str]], value: Any, at: int) -> list[Activity]:
    """The custom events a condition mentions with their fields, and its attributes, holding a value, as far as that fits."""
    events = []
    for kind, fields in names.items():
        props: dict[str, Any] = {}
        held = value[: max(1, MOST_VALUES // len(fields))] if fields and type(value) is list else value
        for path in sorted(fields)[: max(1, MOST_EVENT // len(pack({"": held})))]:
            _put(props, path, held)
            if not kind:
                props[path] = held
        events.append(_event(kind, at, props) if kind else _event("identify", at, {"attributes": props}))
    return events


def _put(props: dict[str, Any], path: str, value: Any) -> None:
    """A value at a dotted path."""
    *heads, last = path.split(".")
    for head in heads:
        inner = props.setdefault(head, {})
        props = inner if isinstance(inner, dict) else {}
    props[last] = value


def _message(fields: Mapping[str, Kind], number: Any, text: str) -> dict[str, Any]:
    """The properties of an event, every field filled; lines are a list of two and one without anything."""
    props: dict[str, Any] = {}
    for path, kind in fields.items():
        _put(props, path, number if kind is NUMBER else kind is not FLAG and text)
    if "items" in props:
        props["items"] = [props["items"], dict(props["items"]), {}]
    return props


def _one_of_everything(number: Any, text: str) -> Profile:
    return people.decode(_everything(number, text))


@cache
def _everything(number: Any, text: str) -> bytes:
    person = people.empty("customer")
    _fold(person, _all_types(number, text, NOW - HOUR_MS))
    _fold(person, _all_types(number, text, NOW - 2 * HOUR_MS))
    return people.encode(person)


@cache
def _heavy(texts: str) -> bytes:
    person = people.empty("customer")
    _fold(person, _wide([DEAR_TEXTS[texts](n)[0] if texts else f"a/{n}" for n in range(MOST_LINES)]))
    for n in range(LIMIT):
        text = DEAR_TEXTS[texts](n)[0] if texts else f"a/{n}"
        _fold(person, _all_types(float(n), text, NOW - n * HOUR_MS))
    return people.encode(person)


def _wide(texts: Sequence[str]) -> list[Activity]:
    """A cart and a wishlist with a line for each text, and LIMIT orders with these lines."""
    cut = [text.encode()[:LINE_TEXT].decode(errors="ignore") for text in texts]
    lines = [{"sku": text, "name": text, "category": text, "quantity": 2, "price": 3.5} for text in cut]
    placed = [
        _event(
            "order_placed",
            NOW - n,
            {"order_id": f"w{n}", "grand_total": 1, "items": lines[n % 2 :: MOST_LINES // ORDER_LINES]},
        )
        for n in range(LIMIT)
    ]
    return [*(_event(kind, NOW, {"items": lines}) for kind in people.WHOLE), *placed]


def _all_types(number: Any, text: str, at: int) -> list[Activity]:
    """One event of every type; the cart and the wishlist have lines."""
    line = _message({"sku": CODE, "name": CODE, "category": CODE, "quantity": NUMBER, "price": NUMBER}, number, text)
    whole = {"items": [line, {}]}
    events = [
        _event(kind, at, {**_message(fields, number, text), **(whole if kind in people.WHOLE else {})})
        for kind, fields in EVENTS.items()
        if kind not in people.REGISTERS
    ]
    said: dict[str, dict[str, Any]] = {"identify": {}, "group_assigned": {"group": text}, "consent_changed": {}}
    return [*events, *(_event(kind, at, props) for kind, props in said.items())]


def _event(kind: str, at: int, props: Mapping[str, Any]) -> Activity:
    name = int.from_bytes(blake2b(f"{kind} {at}".encode(), digest_size=8).digest(), "big", signed=True)
    return Activity(name, kind, at, "main", pack(dict(props)))


def _fold(person: Profile, events: Sequence[Activity]) -> None:
    for event in events:
        people.fold(person, event, NOW)


def _request(value: Any) -> dict[str, Any]:
    return dict.fromkeys(FIELDS, value)
