"""A gateway whose clock is moved by somebody else: forward and back, by the milliseconds that stand in a file."""

from __future__ import annotations

import mmap
import runpy
import struct
import sys
from pathlib import Path

from chassis.clock import SystemClock

MOST_MS = 900


class Moves:
    """The file, in the hands of whoever moves the clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(struct.pack("q", 0))

    def by(self, ms: int) -> None:
        """From now on the clock is so far ahead, or behind."""
        with self.path.open("r+b") as file:
            file.write(struct.pack("q", ms))


def main(path: str) -> None:
    """Run a gateway."""
    right = SystemClock.now_ms
    with Path(path).open("rb") as file:
        moved = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)

    def now_ms(self: SystemClock) -> int:
        return right(self) + int(struct.unpack("q", moved[:8])[0])

    SystemClock.now_ms = now_ms  # type: ignore[method-assign]
    runpy.run_module("gateway", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
