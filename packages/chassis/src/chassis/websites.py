"""Of which websites something is, who may look at it, and who may change it. What names no website is of every one there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chassis.auth import Actor
from chassis.problems import Problem


def theirs(actor: Actor, websites: Sequence[str]) -> None:
    """Raises Problem 403 for who changes what other websites notice."""
    if not actor.serves(websites):
        detail = f"It is to be of {', '.join(actor.websites)} alone"
        errors = [{"pointer": "/websites", "detail": detail}]
        raise Problem("not-your-website", 403, "This is of websites that are not yours", errors=errors)


def visible(reader: Actor | None, body: Any) -> bool:
    """Whether something is shown to a reader: when it is of one of his websites, too; to nobody in particular, always."""
    named = touched(body)
    return reader is None or not reader.websites or not named or not set(named).isdisjoint(reader.websites)


def touched(*bodies: Any) -> list[str]:
    """The websites that notice a change between these (None: what is not there); none of them for every one there is."""
    named: list[Any] = [body.get("websites") if isinstance(body, dict) else None for body in bodies if body is not None]
    if not all(isinstance(names, list) and names for names in named):
        return []
    return sorted({str(name) for names in named for name in names})
