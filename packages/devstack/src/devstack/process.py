"""A child process that dies with its parent, logs to a file and is stopped in a bounded time."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1


class StartFailed(Exception):
    """A server did not come up; the message ends with the last lines of its log."""


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    """Whether somebody accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(slots=True)
class Child:
    """One process. `death` is the signal it gets when we end, however we end."""

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    cwd: Path | None = None
    death: signal.Signals = signal.SIGTERM
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; does not wait for it to be ready."""
        libc = ctypes.CDLL(None, use_errno=True)

        def in_child() -> None:
            libc.prctl(PR_SET_PDEATHSIG, self.death.value)

        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=self.cwd,
                env={**os.environ, **self.env}, user=self.user, group=self.user, start_new_session=True,
                extra_groups=[] if self.user is not None else None, preexec_fn=in_child,
            )  # fmt: skip

    def wait_ready(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until `ready` says so. Raises StartFailed when the process ends first or the time is up."""
        until = time.monotonic() + seconds
        while not ready():
            if self.popen is None or self.popen.poll() is not None or time.monotonic() > until:
                tail = self.log.read_text(errors="replace").splitlines()[-15:]
                self.stop()
                raise StartFailed(f"{self.name} did not start:\n" + "\n".join(tail))
            time.sleep(0.05)

    def stop(self, *, seconds: float = 10.0) -> None:
        """Ask it to end, then make it."""
        if self.popen is None:
            return
        if self.popen.poll() is None:
            self.popen.send_signal(self.death)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self.popen = None

    def kill(self) -> None:
        """End it without asking, as a crash would."""
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()
            self.popen = None
