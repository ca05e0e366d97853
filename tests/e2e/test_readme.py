"""What the READMEs say to paste into a shell is pasted into one, next to a running demo, and does what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from devstack.claim import Claim

from tests.e2e.conftest import Demo

pytestmark = [pytest.mark.servers, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PATIENCE_S = 30


def blocks(readme: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", (ROOT / readme).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def checkout(demo: Demo, kafka_address: str, tmp_path: Path) -> Iterator[Path]:
    """This checkout, in which the demo is what make run started."""
    for path in ROOT.iterdir():
        if path.name not in (".run", ".git"):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / ".run").mkdir()
    shutil.copy(demo.stack.state / "secrets.json", tmp_path / ".run")
    with closing(Claim(tmp_path / ".run")) as claim:
        claim.announce(gateway=demo.stack.url, shop=demo.shop, kafka=kafka_address)
        yield tmp_path


@pytest.fixture
def kafka_address(demo: Demo) -> str:
    return demo.stack.kafka


def pasted(block: str, checkout: Path) -> list[object]:
    """What the JSON lines that a shell printed say, as soon as all are about something that is there."""
    end = time.monotonic() + PATIENCE_S
    while True:
        done = subprocess.run(["bash", "-e"], input=block, cwd=checkout, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        said = [json.loads(line) for line in re.split(r"(?<=\})(?=\{)|\n", done.stdout) if line]
        if not any(isinstance(s, dict) and s.get("status") == 404 for s in said):
            return said
        assert time.monotonic() < end, said


def test_an_order_from_a_shell_is_taken_and_its_effect_is_shown(checkout: Path) -> None:
    (block,) = blocks("README.md")
    taken, profile, why = pasted(block, checkout)
    assert taken == {"accepted": 1, "rejected": []}
    assert profile["profile"] == "c:42"  # type: ignore[index]
    assert [s["segment"] for s in profile["segments"]] == ["vip"]  # type: ignore[index]
    assert {"block": "vip", "refused": None} in why["slots"]["home.hero"]  # type: ignore[index]


def test_both_ways_to_kafka_make_an_event_and_no_dead_letter(checkout: Path, demo: Demo) -> None:
    kcat, python = blocks("proto/README.md")
    (profile,) = pasted(python, checkout)
    assert profile["profile"] == "v:python"  # type: ignore[index]
    asked = 'eval "$(make -s keys)"; curl -sS "$GATEWAY/admin/v1/profiles/v:kcat" -H "x-api-key: $ADMIN"'
    if shutil.which("kcat"):
        pasted(kcat, checkout)
        (profile,) = pasted(asked, checkout)
        assert profile["profile"] == "v:kcat"  # type: ignore[index]
    else:
        assert kcat.count("kcat -P") == 1
