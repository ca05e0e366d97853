"""Compiles proto/contracts into proto/src/contracts, with type stubs. `--check` only says whether anything would change."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent / "proto"
TARGET = ROOT / "src"


def compile_to(out: Path) -> None:
    """Compile every message file. Raises SystemExit when the compiler refuses one."""
    files = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "contracts").rglob("*.proto"))
    include = str(Path(protoc.__file__).parent / "_proto")
    status = protoc.main(["protoc", f"-I{ROOT}", f"-I{include}", f"--python_out={out}", f"--pyi_out={out}", *files])
    if status:
        raise SystemExit(status)


def drifted() -> list[str]:
    """Generated files that are not what the sources give."""
    with tempfile.TemporaryDirectory() as scratch:
        compile_to(Path(scratch))
        made = {p.relative_to(scratch): p.read_bytes() for p in Path(scratch).rglob("*_pb2.py*")}
    return [
        str(name) for name, body in made.items() if not (TARGET / name).exists() or (TARGET / name).read_bytes() != body
    ]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit("\n".join(drifted()) or 0)
    compile_to(TARGET)
