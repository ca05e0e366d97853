"""A signal ends a run, wherever it comes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

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


MAKES = """
import os, signal, subprocess, sys
from pathlib import Path
from devstack.__main__ import interruptible
from devstack.process import Child
interruptible()
signal.alarm(60)
real, made = subprocess.Popen, []

def interrupted(*argv, **more):
    made.append(real(*argv, **more))
    os.kill(os.getpid(), signal.SIGINT)
    return made[0]

child = Child("sleep", ["sleep", "60"], Path(sys.argv[1]))
subprocess.Popen = interrupted
try:
    child.start()
except KeyboardInterrupt:
    print("interrupted", flush=True)
child.stop()
print(f"ended:{made[0].returncode}", flush=True)
made[0].kill()
"""


class TestSignals:
    def test_a_signal_whose_exception_is_lost_is_heard_all_the_same(self) -> None:
        done = subprocess.run([sys.executable, "-c", LOSES], text=True, capture_output=True, timeout=60)
        assert done.stdout.split("\n")[1:3] == ["Stopping", "went on"]
        assert done.stdout.endswith("heard\n")

    def test_a_signal_while_a_child_is_made_leaves_it_to_nobody_else(self, tmp_path: Path) -> None:
        argv = [sys.executable, "-c", MAKES, str(tmp_path / "log")]
        done = subprocess.run(argv, text=True, capture_output=True, timeout=60)
        assert done.stdout.split() == ["Stopping", "interrupted", f"ended:{-signal.SIGTERM}"], done.stderr
