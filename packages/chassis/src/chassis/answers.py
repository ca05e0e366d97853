"""What answers look like, for the OpenAPI document. Nothing is checked or changed by it at run time: tests/fuzz holds what is
really answered against it."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict


def says(model: Any, status: int = 200) -> dict[str, Any]:
    """How a route is declared that answers with this."""
    return {"response_model": None, "responses": {status: {"model": model}}}


class Version(TypedDict):
    """Who saved what, and when (epoch ms)."""

    version: int
    body: dict[str, Any]
    actor: str
    saved_at: int
    deleted: NotRequired[bool]


class Versions(TypedDict):
    """A page, newest first, and what to ask the next one with."""

    versions: list[Version]
    next: int | None
