"""What answers to merchants look like."""

from __future__ import annotations

from typing_extensions import TypedDict

from promo_svc.schemas import NewCartRule


class StoredRule(NewCartRule):
    """A cart price rule as it was saved last."""

    version: int


class Rules(TypedDict):
    """By key."""

    rules: list[StoredRule]
