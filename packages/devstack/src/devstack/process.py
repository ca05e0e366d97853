"""A child process that dies with its parent, proves that a port is its own, logs to a file and stops in a bounded time."""

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
from secrets import randbelow
from typing import BinaryIO

import psutil

PR_SET_PDEATHSIG = 1
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOPBACK = "127.0.0.1"
ATTEMPTS = 5
OUTGOING, FIRST_PORT = Path("/proc/sys/net/ipv4/ip_local_port_range"), 10_000
_given: set[int] = set()  # to servers of ours that may not have come up yet


class StartFailed(Exception):
    """A server did not come up; the message ends with the last lines of its log."""


class PortTaken(StartFailed):
    """It did not come up because somebody else has its port."""


def bindable(port: int) -> bool:
    """Whether a server could listen on a loopback port (0: on any)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError:
            return False
    return True


def free_port() -> int:
    """A loopback port that is free now, and was not given before; somebody may take it before it is used: see `on_free_port`.

    Where there is room, it is none of those the system gives connections that go out: one of these, even one that looks for
    the very server, could have it while that is started again.
    """
    outgoing = int(OUTGOING.read_text().split()[0]) if OUTGOING.exists() else 0
    for _ in range(100 if outgoing > FIRST_PORT else 0):
        port = FIRST_PORT + randbelow(outgoing - FIRST_PORT)
        if port not in _given and bindable(port):
            _given.add(port)
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def on_free_port(serve: Callable[[int], None], kept: int = 0) -> int:
    """Start a server on `kept`, or else on a free port, on another one when somebody was faster. Answers the port."""
    for _ in range(1 if kept else ATTEMPTS):
        port = kept or free_port()
        _given.add(port)
        try:
            serve(port)
            return port
        except PortTaken as error:
            taken = error
    raise taken


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on a port: somebody else's server there is not ours."""
    try:
        sockets = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(s.status == psutil.CONN_LISTEN and s.laddr.port == port for s in sockets)


def direct() -> None:
    """What we ask on this machine goes there, whatever proxy the environment names for the rest of the world."""
    known = [name for name in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",") if name]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*known, LOOPBACK, "localhost"])


def _followed(death: signal.Signals) -> Callable[[], None]:
    """What a child does before it becomes its program: get `death` when we end."""
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, death.value)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        if os.getppid() != parent:  # we ended before it could follow
            os._exit(1)

    return in_child


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
    logged: int = 0  # bytes of the log that are of earlier lives

    def start(self) -> None:
        """Start it; does not wait for it to be ready."""
        with self.log.open("ab") as out:
            self.logged = out.tell()
            # Not between the fork and the name: a child that nobody knows of would outlive us.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
            try:
                self.popen = self._popen(out)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _popen(self, out: BinaryIO) -> subprocess.Popen[bytes]:
        # What is inheritable is meant to be: claim.py has one such file.
        return subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=self.cwd,
            env={**os.environ, **self.env}, user=self.user, group=self.user, start_new_session=True,
            extra_groups=[] if self.user is not None else None, preexec_fn=_followed(self.death), close_fds=False,
        )  # fmt: skip

    def wait_ready(self, port: int, answers: Callable[[], bool] = lambda: True, *, seconds: float) -> None:
        """Wait until it listens on `port` itself and `answers`. Raises StartFailed when it ends first or the time is up."""
        until = time.monotonic() + seconds
        while True:
            if self.popen is None or self.popen.poll() is not None or time.monotonic() > until:
                raise self._failed(port)
            if listens(self.popen.pid, port) and answers():
                return
            time.sleep(0.05)

    def _failed(self, port: int) -> StartFailed:
        self.stop()
        with self.log.open("rb") as log:
            log.seek(self.logged)
            said = log.read().decode(errors="replace")
        if "address already in use" in said.lower():
            return PortTaken(f"{self.name} could not listen on port {port}: another program has it")
        return StartFailed(f"{self.name} did not start; {self.log} ends with:\n" + "\n".join(said.splitlines()[-15:]))

    @property
    def ended(self) -> bool:
        """Whether it was started, and ended by itself."""
        return self.popen is not None and self.popen.poll() is not None

    @property
    def how(self) -> str:
        """By which signal or with which exit code it ended; only of one that did."""
        assert self.popen is not None
        code = self.popen.returncode
        return f"with exit code {code}" if code >= 0 else f"by {signal_name(-code)}"

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


def signal_name(number: int) -> str:
    """SIGKILL of 9; the number where Python has no name for it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def finish(name: str, argv: Sequence[str], *, user: int | None = None, cwd: Path | None = None) -> None:
    """Run a short command to its end. Raises StartFailed with the last it said when it fails."""
    done = subprocess.run(
        argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, user=user, group=user, cwd=cwd,
        preexec_fn=_followed(signal.SIGKILL), close_fds=False,
    )  # fmt: skip
    if done.returncode:
        raise StartFailed(f"{name} failed:\n" + (done.stdout + done.stderr).strip()[-1000:])
