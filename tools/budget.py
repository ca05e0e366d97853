"""Size budgets: fails when a module or a function outgrows what a reader can hold. Run by make check and make test."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE_CAP, DOMAIN_CAP, TEST_CAP, FUNCTION_CAP, FUNCTION_P95 = 350, 250, 350, 60, 40
GENERATED = "proto/src/contracts/events"


def functions(tree: ast.Module) -> list[tuple[str, int]]:
    """(name, lines) of every function."""
    return [
        (node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def tracked() -> list[Path]:
    """Python files git knows or would add, generated ones left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [ROOT / name for name in listed.stdout.split() if not name.startswith(GENERATED) and (ROOT / name).exists()]


def main() -> int:
    """Print every breach; the exit status says whether there was one."""
    breaches: list[str] = []
    sizes: list[int] = []
    for path in tracked():
        name, text = str(path.relative_to(ROOT)), path.read_text()
        lines = text.count("\n")
        cap = TEST_CAP if "tests" in path.parts else DOMAIN_CAP if "domain" in path.parts else MODULE_CAP
        if lines > cap:
            breaches.append(f"{name} {lines} lines > {cap}")
        for function, length in functions(ast.parse(text)):
            if length > FUNCTION_CAP:
                breaches.append(f"{name} {function} {length} lines > {FUNCTION_CAP}")
            sizes.append(length)
    p95 = statistics.quantiles(sizes, n=20)[-1] if len(sizes) > 20 else 0
    if p95 > FUNCTION_P95:
        breaches.append(f"95 % of functions should be within {FUNCTION_P95} lines, not {p95:.0f}")
    print(
        "\n".join(f"budget: {b}" for b in breaches)
        or f"budget: {len(sizes)} functions, median {statistics.median(sizes)}"
    )
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
