"""What is evaluated: a cart, and the facts that come with the request. Amounts in minor units of one currency.

All that is asked is bounded, so that every amount of an answer is exact, in JavaScript too: a line costs at most MOST_PRICE
apiece, and the whole, shipping included, at most MOST_TOTAL.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from conditions.read import step
from conditions.values import MOST_ELEMENTS
from msgspec import Meta

MOST_PRICE = 10**12
MOST_TOTAL = 9 * 10**15
MOST_QUANTITY = 1_000_000
MOST_LINES = 500
MOST_DEPTH, MOST_ITEMS, MOST_TEXT, MOST_SHORT = 4, 50, 1000, 200
MOST_TYPED = 2000  # letters where a coupon is typed: what is no code is an unknown one
MOST_GROUP = 2000  # what a group in an event may have
MOST_LISTED = 5000  # every condition of a rule may have to look at each
DEAR_S = 0.05  # of a thread's own time, for one rule and one cart
DEAR_CART_S = 0.5  # the same, for all rules and one cart
LAST_INSTANT = 253_402_300_799_999

Text = Annotated[str, Meta(max_length=MOST_SHORT)]
Amount = Annotated[int, Meta(ge=0, le=MOST_PRICE)]


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`price` per unit; `categories` are paths such as shoes/running; `discountable` False keeps every rule away."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    price: Amount
    quantity: Annotated[int, Meta(ge=1, le=MOST_QUANTITY)] = 1
    sku: Text = ""
    categories: Annotated[tuple[Text, ...], Meta(max_length=MOST_ITEMS)] = ()
    attributes: Annotated[dict[Text, Any], Meta(max_length=MOST_ITEMS)] = {}
    discountable: bool = True

    @property
    def row(self) -> int:
        """Price times quantity."""
        return self.price * self.quantity


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cart and who asks. `segments` are keys, `group` is guest for visitors, `at_ms` the instant that counts.

    `killed`: rules (keys) that nobody is given, whatever is published. `unknown`: segments of which nobody can say whether they
    are in: who must not be in one is not known to be out. `version`: of the rules, by default the newest.
    """

    website: Text
    at_ms: Annotated[int, Meta(ge=0, le=LAST_INSTANT)]
    lines: Annotated[tuple[Line, ...], Meta(max_length=MOST_LINES)]
    currency: Text = "EUR"
    group: Annotated[str, Meta(max_length=MOST_GROUP)] = "guest"
    segments: frozenset[Text] = frozenset()
    unknown: frozenset[Text] = frozenset()
    coupons: Annotated[tuple[Annotated[str, Meta(max_length=MOST_TYPED)], ...], Meta(max_length=MOST_ITEMS)] = ()
    shipping: Amount = 0
    killed: frozenset[Text] = frozenset()
    version: Annotated[int, Meta(ge=1, le=MOST_TOTAL)] | None = None

    @property
    def subtotal(self) -> int:
        """What the lines cost before any discount."""
        return sum(line.row for line in self.lines)


def faults(request: Request, currencies: Container[str]) -> list[tuple[str, str]]:
    """(pointer, detail) of all that is wrong with a cart and that its types do not say. `currencies`: those there are."""
    found = [] if request.currency in currencies else [("/currency", "is the ISO 4217 code of a currency")]
    seen: set[str] = set()
    total, listed = request.shipping, 0
    for i, line in enumerate(request.lines):
        if line.id in seen:
            found.append((f"/lines/{i}/id", "another line has this id"))
        seen.add(line.id)
        if total <= MOST_TOTAL < total + line.row:
            found.append((f"/lines/{i}", f"a cart with its shipping comes to at most {MOST_TOTAL:,} minor units"))
        total += line.row
        odd = list(_odd(line.attributes, f"/lines/{i}/attributes", 0))
        lists = {} if odd else {name: _listed(value) for name, value in line.attributes.items()}
        long = [name for name, count in lists.items() if count > MOST_ELEMENTS]
        found += odd + [(f"/lines/{i}/attributes{step(name)}", f"has over {MOST_ELEMENTS} values") for name in long]
        more = len(line.categories) + sum(lists.values())
        if listed <= MOST_LISTED < listed + more:
            found.append((f"/lines/{i}", f"categories and lists of a cart have at most {MOST_LISTED:,} values in all"))
        listed += more
    return found


def _odd(value: Any, at: str, depth: int) -> Iterable[tuple[str, str]]:
    """What of an attribute is too deep, too long or too many."""
    if isinstance(value, str) and len(value) > MOST_TEXT:
        yield at, f"a text has at most {MOST_TEXT} characters"
    if not isinstance(value, dict | list):
        return
    if depth > MOST_DEPTH or len(value) > MOST_ITEMS:
        yield at, f"at most {MOST_ITEMS} values, {MOST_DEPTH} levels deep"
        return
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _odd(item, at + step(str(name)), depth + 1)


def _listed(value: Any) -> int:
    """How many values stand in a list, and in the lists in it."""
    return len(value) + sum(map(_listed, value)) if isinstance(value, list) else 0


class Dear(Exception):
    """A rule would take longer than it may."""


class DearCart(Exception):
    """The rules together would take longer than they may."""


class Budget:
    """What one rule, and all of them together, may take of the time of a processor, from now on. `own_time`: seconds of it
    this thread has had; by default none is."""

    __slots__ = ("_over", "_own_time", "_until")

    def __init__(self, own_time: Callable[[], float] = float) -> None:
        self._own_time = own_time
        self._over = self._until = own_time() + DEAR_CART_S

    def begin(self) -> None:
        """Another rule. Raises DearCart."""
        self._until = self._spent() + DEAR_S

    def check(self) -> None:
        """Raises Dear once the rule has had its time, DearCart once all have had theirs."""
        if self._spent() > self._until:
            raise Dear

    def _spent(self) -> float:
        now = self._own_time()
        if now > self._over:
            raise DearCart
        return now


@dataclass(slots=True)
class Running:
    """The cart while rules are applied: what is left of each line and of all, what the shipment has been given."""

    request: Request
    left: list[int]
    subtotal: int
    budget: Budget
    stopped: set[int] = field(default_factory=set)
    shipping_given: int = 0

    @classmethod
    def start(cls, request: Request, budget: Budget) -> Running:
        """Nothing given yet."""
        left = [line.row for line in request.lines]
        return cls(request, left, sum(left), budget)

    def lines(self) -> Iterator[tuple[int, Line]]:
        """The lines, numbered, as long as the rule that looks at them has time. Raises Dear."""
        for index, line in enumerate(self.request.lines):
            self.budget.check()
            yield index, line

    def most(self, index: int, amount: int) -> int:
        """What a line can be given of an amount: it never goes below zero."""
        return max(0, min(amount, self.left[index]))

    def give(self, lines: Mapping[int, int], shipping: int) -> None:
        """Discount lines (index: amount that `most` allowed) and the shipment."""
        for index, amount in lines.items():
            self.left[index] -= amount
        self.subtotal -= sum(lines.values())
        self.shipping_given += shipping
