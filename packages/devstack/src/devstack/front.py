"""nginx of the system before an edge, on a free port, by the very configuration that is deployed."""

from __future__ import annotations

import shutil
from pathlib import Path

from devstack.process import LOOPBACK, Child, on_free_port
from devstack.servers import enterable, unprivileged

PACKAGES = ("nginx-light",)
CONF = Path(__file__).parents[4] / "deploy" / "front" / "front.conf"


def available() -> str | None:
    """None when nginx is there, else what is missing."""
    return None if shutil.which("nginx") else "nginx is not installed"


class Front:
    """One instance before the edge at host:port, with the key of the front."""

    def __init__(self, state: Path, edge: str, key: str) -> None:
        self._uid = unprivileged()
        self._home = enterable(state / "front", self._uid)
        self._edge, self._key = edge, key
        self.port = 0
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """http://..."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start, and wait for the port."""
        self.port = on_free_port(self._serve, self.port)

    def _serve(self, port: int) -> None:
        file, text = self._home / "front.conf", CONF.read_text()  # filled in as by deploy/front/run.sh
        filled = (("@EDGE@", self._edge), ("@LISTEN@", f"{LOOPBACK}:{port}"), ("@FRONT_KEY@", self._key))
        for name, value in filled:
            text = text.replace(name, value)
        file.write_text(text)
        argv = ["nginx", "-p", str(self._home), "-c", str(file)]
        self._child = Child("nginx", argv, self._home / "log", user=self._uid, cwd=self._home)
        self._child.start()
        self._child.wait_ready(port, seconds=30)

    def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            self._child.stop()
