"""Varnish of the system, with a given VCL on a free port."""

from __future__ import annotations

import shutil
from pathlib import Path

from devstack.process import Child, free_port, listening

PACKAGES = ("varnish", "varnish-modules", "varnish-vmod-digest")


def available() -> str | None:
    """None when Varnish and its modules are there, else what is missing."""
    if shutil.which("varnishd") is None:
        return "varnishd is not installed"
    found = {p.name for p in Path("/usr/lib").glob("*/varnish/vmods/libvmod_*.so")}
    missing = [m for m in ("xkey", "digest", "header") if f"libvmod_{m}.so" not in found]
    return f"Varnish modules are missing: {', '.join(missing)}" if missing else None


class Varnish:
    """One instance; `vcl` is the whole configuration."""

    def __init__(self, state: Path, vcl: str) -> None:
        self._home = state / "varnish"
        self._home.mkdir(parents=True, exist_ok=True)
        (self._home / "edge.vcl").write_text(vcl)
        self.port = free_port()
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """http://..."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Compile the VCL, start, and wait for the port."""
        argv = [
            "varnishd", "-F", "-a", f"127.0.0.1:{self.port}", "-f", str(self._home / "edge.vcl"), "-n",
            str(self._home / "work"), "-s", "malloc,64m", "-T", "none",
        ]  # fmt: skip
        self._child = Child("Varnish", argv, self._home / "log")
        self._child.start()
        self._child.wait_ready(lambda: listening(self.port), seconds=30)

    def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            self._child.stop()
