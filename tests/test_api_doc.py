"""The OpenAPI document is what the code says, whole and closed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "api" / "openapi.json").read_text()


def test_the_document_is_what_the_code_gives() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "tools/openapi.py"), "--check"], check=False)
    assert done.returncode == 0, "run make proto"


def test_every_reference_resolves_and_every_operation_has_a_name() -> None:
    document = json.loads(TEXT)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', TEXT):
        assert name in document["components"]["schemas"]
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names)) > 30
