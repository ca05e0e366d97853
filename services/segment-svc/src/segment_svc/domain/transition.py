"""One move of a person into or out of a segment."""

from __future__ import annotations

from typing import NamedTuple


class Transition(NamedTuple):
    """A person entered or left a segment at `at` (epoch ms), for `cause`.

    Causes: event, time, definition, merge, late_data, quarantine.
    """

    profile: str
    segment_id: int
    at: int
    entered: bool
    cause: str
    definition_version: int
    source_event: str | None
