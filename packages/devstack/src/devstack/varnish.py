"""Varnish of the system, on a free port. It has its port before it knows the gateway's."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devstack.process import LOOPBACK, Child, StartFailed, on_free_port
from devstack.servers import enterable, unprivileged

PACKAGES = ("varnish", "varnish-modules", "varnish-vmod-digest")
EDGE = Path(__file__).parents[4] / "deploy" / "edge"
VCL, GATEWAY = EDGE / "edge.vcl", EDGE / "gateway.vcl"
PARAMETERS = re.findall(r"-p (\w+=\w+)", (EDGE / "run.sh").read_text())  # all but the folder
NOTHING = "vcl 4.1; backend none none; sub vcl_recv { return (synth(503)); }"


def available() -> str | None:
    """None when Varnish and its modules are there, else what is missing."""
    if shutil.which("varnishd") is None:
        return "varnishd is not installed"
    found = {p.name for p in Path("/usr/lib").glob("*/varnish/vmods/libvmod_*.so")}
    missing = [m for m in ("xkey", "digest", "cookie", "str") if f"libvmod_{m}.so" not in found]
    return f"Varnish modules are missing: {', '.join(missing)}" if missing else None


class Varnish:
    """One instance with the keys of an edge (deploy/edge/edge.vcl); answers 503 until it is told of a gateway.

    `parameters` of varnishd, `name=value`, go before those that are deployed.
    """

    def __init__(self, state: Path, keys: Mapping[str, str], parameters: Sequence[str] = ()) -> None:
        # Not as root: it would change its user, and with that forget that it is to end when we do.
        self._uid = unprivileged()
        self._home = enterable(state / "varnish", self._uid)
        self.port, self._number = 0, 0
        self._work, self._keys, self._parameters = self._home, keys, (*PARAMETERS, *parameters)
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """http://..."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start, and wait for the port."""
        (self._home / "nothing.vcl").write_text(NOTHING)
        self.port = on_free_port(self._serve, self.port)

    def _serve(self, port: int) -> None:
        for left in self._home.glob("work-*"):
            shutil.rmtree(left, ignore_errors=True)
        self._work = self._home / f"work-{port}"
        argv = [
            "varnishd", "-F", "-a", f"{LOOPBACK}:{port}", "-f", str(self._home / "nothing.vcl"), "-n", str(self._work),
            "-s", "malloc,64m", "-p", f"vcl_path={self._home}", *(w for p in self._parameters for w in ("-p", p)),
        ]  # fmt: skip
        log = self._home / "log"
        self._child = Child("Varnish", argv, log, env=self._keys, user=self._uid, cwd=self._home)
        self._child.start()
        self._child.wait_ready(port, self._answers, seconds=30)

    def _answers(self) -> bool:
        return "Child in state running" in self._admin("status")[1]

    def use(self, gateway: str, vcl: Path = VCL) -> None:
        """Answer by a configuration, for a gateway at host:port. Raises StartFailed for a broken one."""
        self._number += 1
        name, (host, _, port) = f"v{self._number}", gateway.rpartition(":")
        file = self._home / f"{name}.vcl"
        file.write_text(vcl.read_text())
        backend = GATEWAY.read_text().replace("@HOST@", host).replace("@PORT@", port)
        (self._home / "backend.vcl").write_text(backend)
        for command in (("vcl.load", name, str(file)), ("vcl.use", name)):
            status, said = self._admin(*command)
            if status:
                raise StartFailed(f"Varnish does not take its configuration:\n{said[-1000:]}")

    def _admin(self, *command: str) -> tuple[int, str]:
        argv = ["varnishadm", "-n", str(self._work), *command]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            self._child.stop()
