"""Of which websites something is, who may look at it, and who may change it. What names no website is of every one there is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chassis.auth import Actor
from chassis.problems import Problem

NAME = r"[A-Za-z0-9._-]{1,63}"  # what a website is called, in keys and in bodies: it stands in tags
OF_OTHER_WEBSITES = "something of websites that are not yours"  # instead of a name


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


def seen(websites: str) -> str:
    """The same of rows with a column `websites`, as a condition of SQL; the parameter has those of the reader."""
    return f"(cardinality({websites}::text[]) = 0 OR websites = '{{}}' OR websites && {websites}::text[])"


def named(users: Mapping[str, Any], reader: Actor) -> list[str]:
    """Of those who use something (by name: a body), the names that the reader may know, and that there are others."""
    seen = [name for name, body in users.items() if visible(reader, body)]
    return seen if len(seen) == len(users) else [*seen, OF_OTHER_WEBSITES]


def touched(*bodies: Any) -> list[str]:
    """The websites that notice a change between these (None: what is not there); none of them for every one there is."""
    named: list[Any] = [body.get("websites") if isinstance(body, dict) else None for body in bodies if body is not None]
    if not all(isinstance(names, list) and names for names in named):
        return []
    return sorted({str(name) for names in named for name in names})


def overlap(one: Any, other: Any) -> bool:
    """Whether two are both of one website."""
    here, there = touched(one), touched(other)
    return not (here and there) or not set(here).isdisjoint(there)


def loses(user: Any, was: Collection[str], stays: Collection[str]) -> bool:
    """Whether somebody who uses something is to do without it on a website: it `was` of these, of none named for every one there
    is, and `stays` of these alone; without any it goes.
    """
    of = set(touched(user))
    if not stays:
        return True
    if not was:
        return not of or not of <= set(stays)
    gone = set(was) - set(stays)
    return bool(gone) and (not of or not of.isdisjoint(gone))
