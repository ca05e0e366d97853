"""What answers to merchants look like."""

from __future__ import annotations

from typing_extensions import TypedDict

from promo_svc.schemas import NewCartRule


class StoredRule(NewCartRule):
    """A cart price rule as it was saved last."""

    version: int


class Rules(TypedDict):
    """A page, by key, and what to ask the next one with."""

    rules: list[StoredRule]
    next: str | None
