"""A signal ends a run, wherever it comes."""

from __future__ import annotations

import subprocess
import sys

LOSES = """
import signal, os
from devstack.__main__ import heard, interruptible
interruptible()
signal.alarm(60)

class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))

lost = Lost()
del lost
print("went on", flush=True)
try:
    heard()
except KeyboardInterrupt:
    print("heard", flush=True)
"""


class TestSignals:
    def test_a_signal_whose_exception_is_lost_is_heard_all_the_same(self) -> None:
        done = subprocess.run([sys.executable, "-c", LOSES], text=True, capture_output=True, timeout=60)
        assert done.stdout.split("\n")[1:3] == ["Stopping", "went on"]
        assert done.stdout.endswith("heard\n")
