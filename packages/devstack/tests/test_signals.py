"""A signal ends a run, wherever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from devstack.process import Child

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

    def test_a_signal_while_a_child_is_made_leaves_it_to_nobody_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, made = subprocess.Popen, list[Any]()

        def interrupted(*argv: Any, **more: Any) -> Any:
            made.append(real(*argv, **more))
            os.kill(os.getpid(), signal.SIGINT)
            return made[0]

        child = Child("sleep", ["sleep", "60"], tmp_path / "log")
        monkeypatch.setattr(subprocess, "Popen", interrupted)
        try:
            with pytest.raises(KeyboardInterrupt):
                child.start()
            child.stop()
            assert made[0].returncode == -signal.SIGTERM, "it was known, and heard that it is to end"
        finally:
            made[0].kill()
            made[0].wait()
