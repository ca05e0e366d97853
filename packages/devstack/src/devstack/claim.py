"""Who runs in a state folder: a lock held for life, with the addresses in it. A killed run leaves no claim behind."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from devstack.process import StartFailed

SIZE = 1000  # the announcement is written in one piece, so that nobody reads half of it
LOOKED_AT_S, LEFTOVERS_S = 0.5, 40.0


class Runs(Exception):
    """Another process has the claim. `found` is what it announced: its `pid`, and its addresses once it is up."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__(found)
        self.found = found


def running(state: Path) -> dict[str, Any] | None:
    """What the run in this folder announced; None when nothing runs, whatever an earlier run left."""
    try:
        file = os.open(state / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        found: dict[str, Any] = json.loads(os.pread(file, SIZE, 0) or b"{}")
        return found
    finally:
        os.close(file)
    return None


class Claim:
    """The right to run in a folder, made if need be. Raises Runs when another process has it, StartFailed if it cannot be."""

    def __init__(self, state: Path) -> None:
        try:
            state.mkdir(exist_ok=True)
            self._lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StartFailed(f"{state}, where the data is kept, cannot be written: {error.strerror}") from None
        if not _taken(self._lock, LOOKED_AT_S):  # somebody who only looks has it for an instant
            os.close(self._lock)
            raise Runs(running(state) or {})
        self.announce()
        # Children inherit this one, and the kernel gives it back when the last of them is gone.
        self._children = os.open(state / "children", os.O_RDWR | os.O_CREAT, 0o600)
        os.set_inheritable(self._children, True)

    def announce(self, **addresses: str) -> None:
        """Say where everything is."""
        os.pwrite(self._lock, json.dumps({"pid": os.getpid(), **addresses}).encode().ljust(SIZE), 0)

    def wait_for_leftovers(self) -> None:
        """Wait for what a killed run left to end by itself. Raises StartFailed when it does not."""
        if _taken(self._children, 0):
            return
        print("Waiting for what a killed run left to end", flush=True)
        if not _taken(self._children, LEFTOVERS_S):
            raise StartFailed("something that a killed run started does not end; fuser .run/children lists it")

    def close(self) -> None:
        """Give it back; nothing of ours runs any more."""
        os.ftruncate(self._lock, 0)
        os.close(self._children)
        os.close(self._lock)


def _taken(file: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
