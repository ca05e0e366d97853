"""What the live rules that one cart can meet take together, on the made-up carts that are the most work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product

from promo_svc.domain.cart import DEAR_CART_S, LAST_INSTANT, DearCart, Line
from promo_svc.domain.evaluate import RuleSet
from promo_svc.domain.probe import HEAVY_LINES, heavy, spent
from promo_svc.domain.rule import Rule

MOST_COUPONS = 5  # so many are counted for a cart; who types more may have to do without promotions
MOST_WORST = 2  # of the small carts: their large ones are tried, for nobody else publishes meanwhile
Costs = Sequence[tuple[Rule, float]]


def weigh_together(rule: Rule, others: Iterable[Rule], own_time: Callable[[], float], now_ms: int) -> None:
    """Run a rule and those that a cart can meet it with, one by one. `own_time`: seconds of CPU spent so far.
    Raises DearCart when those of one website take too long in sum."""
    rules = [rule, *(other for other in others if other.id != rule.id and _meet(rule, other, now_ms))]
    compiled = [(each, RuleSet.compile(0, [each])) for each in rules]

    def took(content: tuple[Line, ...]) -> float:
        return dearest(rule, [(each, spent(alone, content, own_time)) for each, alone in compiled], now_ms)

    few, many = HEAVY_LINES
    tried = list(map(took, heavy(rules, few, alone=1)))
    worst = sorted(range(len(tried)), key=tried.__getitem__)[-MOST_WORST:]
    made = zip(*(heavy(rules, many, salt=salt, alone=1) for salt in range(2)), strict=True)
    # The second one only if the first one took long.
    if any(all(took(content) > DEAR_CART_S for content in contents) for i, contents in enumerate(made) if i in worst):
        raise DearCart


def dearest(rule: Rule, costs: Costs, now_ms: int) -> float:
    """The most that rules take for one cart that `rule` is for, whatever its website, group and instant."""
    websites = rule.websites or {"", *(name for other, _ in costs for name in other.websites)}
    groups = {"", *(name for other, _ in costs for name in other.groups)} if rule.all_groups else rule.groups
    starts = {max(now_ms, other.starts_at or 0) for other, _ in costs}
    return max(
        (_sum(costs, *cart) for cart in product(websites, groups, starts) if _holds(rule, *cart)),
        default=0.0,
    )


def _sum(costs: Costs, website: str, group: str, at_ms: int) -> float:
    here = [(rule, cost) for rule, cost in costs if _holds(rule, website, group, at_ms)]
    coupons = sorted((cost for rule, cost in here if rule.coupon), reverse=True)
    return sum(cost for rule, cost in here if not rule.coupon) + sum(coupons[:MOST_COUPONS])


def _holds(rule: Rule, website: str, group: str, at_ms: int) -> bool:
    """Whether a cart there, of that group, at that instant, may have to be looked at by a rule."""
    begun = (rule.starts_at or 0) <= at_ms < _end(rule)
    return begun and (not rule.websites or website in rule.websites) and (rule.all_groups or group in rule.groups)


def _meet(rule: Rule, other: Rule, now_ms: int) -> bool:
    """Whether one cart can be for both, from now on."""
    begun = max(now_ms, rule.starts_at or 0, other.starts_at or 0) < min(_end(rule), _end(other))
    here = not (rule.websites and other.websites) or bool(rule.websites & other.websites)
    return begun and here and (rule.all_groups or other.all_groups or bool(rule.groups & other.groups))


def _end(rule: Rule) -> int:
    return LAST_INSTANT + 1 if rule.ends_at is None else rule.ends_at
