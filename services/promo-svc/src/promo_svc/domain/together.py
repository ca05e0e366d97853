"""What the live rules that one cart can meet take together, on the made-up carts that are the most work."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from promo_svc.domain.cart import DEAR_CART_S, LAST_INSTANT, DearCart, Line
from promo_svc.domain.evaluate import RuleSet
from promo_svc.domain.probe import HEAVY_LINES, TRIES, bare, heavy, spent
from promo_svc.domain.rule import Rule

MOST_COUPONS = 5  # so many are counted for a cart; who types more may have to do without promotions
MOST_WORST = 2  # of the small carts: their large ones are tried
Costs = Sequence[tuple[Rule, float]]


class Load(NamedTuple):
    """What a cart takes, and on which website; the empty name stands for any that no rule names."""

    seconds: float
    website: str


class Full(DearCart):
    """The rules of a website take too long together."""

    def __init__(self, website: str) -> None:
        super().__init__(website)
        self.website = website


def weigh_together(rule: Rule, others: Iterable[Rule], own_time: Callable[[], float], now_ms: int) -> None:
    """Run a rule and those that a cart can meet it with, one by one. `own_time`: seconds of CPU spent so far, and may raise.
    Raises Full when those of one website take too long in sum."""
    rules = [rule, *(other for other in others if other.key != rule.key and meet(rule, other, now_ms))]
    compiled = [(each, RuleSet.compile(0, [each])) for each in rules]

    def took(content: tuple[Line, ...]) -> Load:
        empty = bare(content, own_time)  # is there once, however many rules look at it
        costs = [(each, max(0.0, spent(alone, content, own_time) - empty)) for each, alone in compiled]
        load = dearest(rule, costs, now_ms, own_time)
        return load._replace(seconds=load.seconds + empty)

    few, many = HEAVY_LINES
    tried = list(map(took, heavy(rules, few, alone=1)))
    worst = sorted(range(len(tried)), key=tried.__getitem__)[-MOST_WORST:]
    made = zip(*(heavy(rules, many, salt=salt, alone=1) for salt in range(TRIES)), strict=True)
    for i, contents in enumerate(made):
        # The next one only if those before took long.
        if i in worst and all((load := took(content)).seconds > DEAR_CART_S for content in contents):
            raise Full(load.website)


def dearest(rule: Rule, costs: Costs, now_ms: int, own_time: Callable[[], float] = float) -> Load:
    """The most that rules take for one cart that `rule` is for, whatever its website, group and instant. May raise what
    `own_time` does."""
    names = rule.websites or {"", *(name for other, _ in costs for name in other.websites)}
    websites = {tuple(_at(costs, name)): name for name in sorted(names, reverse=True)}  # one of each sort
    groups = _distinct(rule, costs)
    if not (rule.all_groups or groups):  # it is for nobody
        return Load(0.0, "")
    return max(
        (
            Load(_swept(rule, [costs[n] for n in here], groups, now_ms, own_time), name)
            for here, name in websites.items()
        ),
        default=Load(0.0, ""),
    )


def _at(costs: Costs, website: str) -> Iterable[int]:
    return (n for n, (rule, _) in enumerate(costs) if not rule.websites or website in rule.websites)


def _distinct(rule: Rule, costs: Costs) -> frozenset[str]:
    """The groups that a rule is for: of those that the same rules are for, one."""
    rules: dict[str, list[int]] = {group: [] for group in rule.groups}
    for n, (other, _) in enumerate(costs):
        for group in other.groups if rule.all_groups else other.groups & rule.groups:
            rules.setdefault(group, []).append(n)
    return frozenset({tuple(found): group for group, found in rules.items()}.values())


def _swept(rule: Rule, here: Costs, groups: frozenset[str], now_ms: int, own_time: Callable[[], float]) -> float:
    """The most of a website while `rule` is on: the others come and go in the order of their instants. Of coupons the dearest
    count, whichever group they are for."""
    bounds = []
    for other, cost in here:
        begins, ends = max(now_ms, rule.starts_at or 0, other.starts_at or 0), min(_end(rule), _end(other))
        if begins < ends:
            bounds += [(begins, 1, cost, other), (ends, -1, cost, other)]
    most = everybody = 0.0
    coupons: list[float] = []
    of_group = dict.fromkeys(groups, 0.0)
    for _, sign, cost, other in sorted(bounds, key=lambda bound: bound[:2]):  # what ends then is over
        own_time()
        if other.coupon:
            insort(coupons, cost) if sign > 0 else coupons.remove(cost)
        elif other.all_groups:
            everybody += sign * cost
        else:
            for group in groups & other.groups:
                of_group[group] += sign * cost
        if sign > 0:
            most = max(most, everybody + max(of_group.values(), default=0.0) + sum(coupons[-MOST_COUPONS:]))
    return most


def meet(rule: Rule, other: Rule, now_ms: int) -> bool:
    """Whether one cart can be for both, from now on."""
    begun = max(now_ms, rule.starts_at or 0, other.starts_at or 0) < min(_end(rule), _end(other))
    here = not (rule.websites and other.websites) or bool(rule.websites & other.websites)
    paid = not (rule.currency and other.currency) or rule.currency == other.currency
    return begun and here and paid and (rule.all_groups or other.all_groups or bool(rule.groups & other.groups))


def _end(rule: Rule) -> int:
    return LAST_INSTANT + 1 if rule.ends_at is None else rule.ends_at
