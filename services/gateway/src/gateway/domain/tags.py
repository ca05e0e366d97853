"""Surrogate keys (xkey): what an answer is made of, as an edge knows it, and what a change makes it forget. Each is of a website.

An answer that is made of too much for a header line has MANY instead, and every change of its website makes the edge forget it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

ALL, MANY = "all", "many"
MOST_LINE = 4096  # bytes: an edge reads no longer one


def of_answer(website: str, tags: Iterable[str]) -> str:
    """The line of an answer."""
    line = " ".join(sorted({ALL, *(f"{website}:{tag}" for tag in tags)}))
    return line if len(line) <= MOST_LINE else f"{ALL} {website}:{MANY}"


def of_change(tags: Iterable[str], websites: Iterable[str]) -> frozenset[str]:
    """What is to be forgotten of these websites."""
    named = (*tags, MANY)
    return frozenset(f"{website}:{tag}" for website in websites for tag in named)


def published(change: Mapping[str, Any], everywhere: Collection[str]) -> frozenset[str]:
    """What a change that a service tells of makes forget; one that names no website is of `everywhere`.

    A segment's never does: only answers of the websites it is of have its tag.
    """
    return of_change(change["tags"], change.get("websites") or everywhere)
