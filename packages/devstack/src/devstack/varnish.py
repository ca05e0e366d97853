"""Varnish of the system, on a free port. It has its port before it has a configuration, and takes every new one live."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from string import Template

from devstack.process import LOOPBACK, Child, StartFailed, on_free_port
from devstack.servers import enterable, unprivileged

PACKAGES = ("varnish", "varnish-modules", "varnish-vmod-digest")
VCL = Path(__file__).parents[4] / "deploy" / "edge" / "edge.vcl"
NOTHING = "vcl 4.1; backend none none; sub vcl_recv { return (synth(503)); }"


def available() -> str | None:
    """None when Varnish and its modules are there, else what is missing."""
    if shutil.which("varnishd") is None:
        return "varnishd is not installed"
    found = {p.name for p in Path("/usr/lib").glob("*/varnish/vmods/libvmod_*.so")}
    missing = [m for m in ("xkey", "digest", "cookie", "str") if f"libvmod_{m}.so" not in found]
    return f"Varnish modules are missing: {', '.join(missing)}" if missing else None


def configuration(*, gateway: str, context: str, edge: str, front: str, purge: str) -> str:
    """The edge's, for a gateway at host:port, with one key of each kind."""
    host, _, port = gateway.rpartition(":")
    return Template(VCL.read_text()).substitute(
        host=host, port=port, visitor_cookie="__Host-ff_vid", context_cookie="__Host-ff_ctx", context_id_1="1",
        context_key_1=context, context_id_2="-", context_key_2="", edge_id="1", edge_key=edge, front_key=front, purge_key=purge,
    )  # fmt: skip


class Varnish:
    """One instance; answers 503 until it is told what to `use`."""

    def __init__(self, state: Path) -> None:
        # Not as root: it would change its user, and with that forget that it is to end when we do.
        self._uid = unprivileged()
        self._home = enterable(state / "varnish", self._uid)
        self.port, self._used, self._number = 0, NOTHING, 0
        self._work = self._home
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
            "-s", "malloc,64m",
        ]  # fmt: skip
        self._child = Child("Varnish", argv, self._home / "log", user=self._uid, cwd=self._home)
        self._child.start()
        self._child.wait_ready(port, self._answers, seconds=30)

    def _answers(self) -> bool:
        return "Child in state running" in self._admin("status")[1]

    def use(self, vcl: str) -> bool:
        """Take a configuration in place of the last; False when it is the same. Raises StartFailed for a broken one."""
        if vcl == self._used:
            return False
        self._number += 1
        file, name = self._home / "edge.vcl", f"v{self._number}"
        file.touch(mode=0o600)
        if self._uid is not None:
            os.chown(file, self._uid, self._uid)
        file.write_text(vcl)
        for command in (("vcl.load", name, str(file)), ("vcl.use", name)):
            status, said = self._admin(*command)
            if status:
                raise StartFailed(f"Varnish does not take its configuration:\n{said[-1000:]}")
        self._used = vcl
        return True

    def _admin(self, *command: str) -> tuple[int, str]:
        argv = ["varnishadm", "-n", str(self._work), *command]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            self._child.stop()
