"""The published rules in memory, compiled once per version; one that is broken is left out alone, and said so."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from time import thread_time
from typing import Any

from chassis.documents import Document
from chassis.problems import Problem
from chassis.snapshot import Once, Snapshot
from chassis.telemetry import get_logger
from prometheus_client import Counter

from promo_svc.domain.cart import Budget, DearCart, Request
from promo_svc.domain.evaluate import RuleSet, evaluate, given_codes, messages, out_of_scope
from promo_svc.domain.rule import Rule, rule_of

KIND, LIVE = "cart-rule", "live"
BROKEN = Counter(
    "promo_rule_broken_total",
    "Times a rule was left out because it cannot be read or evaluated, or took too long",
    ["rule"],
)
DEAR_CARTS = Counter("promo_cart_dear_total", "Carts that the rules together took too long for")
log = get_logger("promo")
typed = Once(lambda document: rule_of(document.id, document.key, document.version, document.body))


@dataclass(frozen=True, slots=True)
class Published:
    """One version of everything published."""

    version: int
    rules: RuleSet
    changes: list[dict[str, Any]]
    told: set[str] = field(default_factory=set)

    def coupon(self, asked: Request) -> Rule | None:
        """The live rule that owns a code given, if it is for who asks."""
        codes = given_codes(asked)
        rules = (rule for code in codes for rule in self.rules.by_coupon.get(code, ()))
        return next((rule for rule in rules if out_of_scope(rule, asked, codes) is None), None)

    def evaluate(self, asked: Request, used_up: Container[int] = ()) -> dict[str, Any]:
        """See `evaluate`. Raises Problem 503 busy for a cart that the rules together take too long for."""
        try:
            return evaluate(self.rules, asked, self._report, Budget(thread_time), used_up)
        except DearCart:
            DEAR_CARTS.inc()
            raise Problem("busy", 503, "The rules take too long for this cart") from None

    def messages(self, asked: Request) -> list[dict[str, Any]]:
        """See `messages`."""
        return messages(self.rules, asked, self._report)

    def _report(self, rule: Rule, error: Exception) -> None:
        tell(self.told, rule.key, rule.version, error)


def published(snapshot: Snapshot[Published], version: int | None) -> Published:
    """What was published as a version. Raises Problem 412 for one that is not here yet, or no more."""
    found = snapshot.at(version)
    if found is None:
        raise Problem("other-version", 412, "The rules are of another version")
    return found


def tell(told: set[str], key: str, version: int, error: Exception) -> None:
    """Say that a rule is left out: counted every time, logged once per release, for a busy shop must not drown in it."""
    BROKEN.labels(key).inc()
    if key not in told:
        told.add(key)
        log.error("rule_broken", rule=key, version=version, error=type(error).__name__)


def build(version: int, documents: Sequence[Document], changes: list[dict[str, Any]]) -> Published:
    """Compile the live rules; one that this version of the code cannot read stops no other."""
    rules: list[Rule] = []
    unreadable: list[tuple[str, int]] = []
    told: set[str] = set()
    for document in documents:
        if document.kind != KIND or not is_live(document):
            continue
        try:
            rules.append(typed(document))
        except Exception as error:
            unreadable.append((document.key, document.version))
            tell(told, document.key, document.version, error)
    return Published(version, RuleSet.compile(version, rules, unreadable), changes, told)


def is_live(document: Document) -> bool:
    """Whether a stored rule is switched on."""
    return isinstance(document.body, dict) and document.body.get("status") == LIVE


def named_segments(document: Document) -> set[str]:
    """Every segment that a stored rule, live or not, readable or not, names."""
    segments = document.body.get("segments")
    lists = segments.values() if isinstance(segments, dict) else ()
    return {key for keys in lists if isinstance(keys, list) for key in keys if isinstance(key, str)}
