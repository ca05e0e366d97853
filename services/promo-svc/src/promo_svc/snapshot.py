"""The published rules in memory, compiled once per version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chassis.documents import Document

from promo_svc.domain.evaluate import RuleSet
from promo_svc.domain.rule import coupon_code, rule_of

KIND = "cart-rule"


@dataclass(frozen=True, slots=True)
class Limits:
    """How often the coupon of a rule may be used; 0 is without limit."""

    key: str
    uses_total: int
    uses_per_customer: int


@dataclass(frozen=True, slots=True)
class Published:
    """One version of everything published."""

    version: int
    rules: RuleSet
    bodies: dict[str, dict[str, Any]]
    changes: list[dict[str, Any]]

    def coupon(self, code: str, at_ms: int) -> Limits | None:
        """The limits of the live rule that owns a code now."""
        for rule in self.rules.by_coupon.get(coupon_code(code), ()):
            if (rule.starts_at or 0) <= at_ms and (rule.ends_at is None or at_ms < rule.ends_at):
                body = self.bodies[rule.key]
                return Limits(rule.key, body["uses_total"], body["uses_per_customer"])
        return None


def build(version: int, documents: Sequence[Document], changes: list[dict[str, Any]]) -> Published:
    """Compile the live rules."""
    live = [d for d in documents if d.kind == KIND and d.body["status"] == "live"]
    rules = RuleSet.compile(version, [rule_of(d.id, d.key, d.version, d.body) for d in live])
    return Published(version, rules, {d.key: d.body for d in live}, changes)
