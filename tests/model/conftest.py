"""Tests of this folder share `oracle`, `world`, `asking` and `faults`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
