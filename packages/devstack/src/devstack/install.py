"""python -m devstack.install: installs what the tests need from the system, where it may (root on Debian)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from devstack import kafka, varnish


def main() -> int:
    """Say what is missing and cannot be installed; under CI=true that is an error."""
    if varnish.available() and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing Varnish and its modules from the system's packages", flush=True)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)  # type: ignore[call-overload]
        argv = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *varnish.PACKAGES]
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(argv, check=False, env=env, **quiet)  # type: ignore[call-overload]
    missing = [m for m in (varnish.available(), kafka.available()) if m]
    for what in missing:
        print(f"{what}: the suites that need it will not run")
    return 1 if missing and os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
