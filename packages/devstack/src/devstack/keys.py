"""python -m devstack.keys: the addresses and keys of what runs, as lines for a shell: eval "$(make -s keys)"."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from devstack.claim import running
from devstack.stack import Secrets

STATE = Path(".run").resolve()


def main() -> int:
    """Print them; exit status 1 when nothing is up."""
    found = running(STATE)
    if found is None or "gateway" not in found:
        print("Nothing is up: make run, in another terminal", file=sys.stderr)
        return 1
    known = Secrets.of(STATE)
    values = {
        "GATEWAY": found["gateway"], "KAFKA": found["kafka"], "SHOP": found["shop"],
        "PUBLISHABLE": known.publishable, "SECRET": known.secret, "ADMIN": known.admin,
    }  # fmt: skip
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
