"""segment-svc with two faults that nobody thought of, each asleep until an event wakes it: run as `python -m segment_svc` is.

A view of the product POISON cannot be folded. A rule over the attribute `fuse` cannot be evaluated for who has it lit.
"""

from __future__ import annotations

import runpy
from typing import Any

from segment_svc.domain import profile as people
from segment_svc.domain.leaves.person import Attribute, attribute

POISON, FUSE, LIT = "POISON", "fuse", "lit"


def break_fold() -> None:
    """The first fault."""
    fold = people.fold

    def broken(profile: Any, activity: Any, now: int) -> Any:
        if POISON.encode() in activity.props:
            raise ZeroDivisionError
        return fold(profile, activity, now)

    people.fold = broken


def break_rule() -> None:
    """The second one."""
    bind = Attribute.bind

    def broken(self: Attribute, params: Any) -> Any:
        answer = bind(self, params)

        def asked(facts: Any, now: int) -> bool:
            if params[0] == FUSE and attribute(facts.profile, FUSE) == LIT:
                raise ZeroDivisionError
            return answer(facts, now)

        return asked

    Attribute.bind = broken  # type: ignore[method-assign]


if __name__ == "__main__":
    break_fold()
    break_rule()
    runpy.run_module("segment_svc", run_name="__main__", alter_sys=True)
