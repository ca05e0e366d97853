"""What became of each case, counted per tag."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field


class Unsupported(Exception):
    """The case needs something the product does not have; the message names it."""


@dataclass(slots=True)
class Report:
    """Outcomes are passed, failed and unsupported."""

    totals: Counter[str] = field(default_factory=Counter)
    tags: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    lines: list[str] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)

    def add(self, case_id: str, tags: Iterable[str], outcome: str, detail: str = "") -> None:
        """Count one case; `detail` says how a failed one differs, or what is not supported."""
        self.totals[outcome] += 1
        for tag in tags:
            self.tags[tag][outcome] += 1
        if outcome == "failed":
            self.lines.append(f"FAILED {case_id}: {detail}")
        if outcome == "unsupported":
            self.lines.append(f"UNSUPPORTED {case_id}: {detail}")
            self.missing[detail] += 1

    def text(self) -> str:
        """The report as lines; the last one counts everything."""
        rows = [
            f"  {tag}: " + ", ".join(f"{n} {o}" for o, n in sorted(c.items())) for tag, c in sorted(self.tags.items())
        ]
        lacking = [f"  {count} x {name}" for name, count in self.missing.most_common()]
        total = ", ".join(f"{self.totals[o]} {o}" for o in ("passed", "failed", "unsupported"))
        parts = [
            *self.lines,
            *(["per tag:", *rows] if rows else []),
            *(["not supported:", *lacking] if lacking else []),
            total,
        ]
        return "\n".join(parts)
