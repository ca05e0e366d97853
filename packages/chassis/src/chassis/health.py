"""What a process knows to be wrong with itself, part by part: behind /readyz, a metric and one log line when it begins."""

from __future__ import annotations

import time

from chassis.telemetry import TROUBLE, get_logger

STUCK_S = 60.0
log = get_logger("health")


class Health:
    """Parts say what is wrong (`trouble`), that nothing is (`fine`), and that they go round at all (`beat`)."""

    def __init__(self) -> None:
        self._troubles: dict[str, str] = {}
        self._beats: dict[str, float] = {}

    def trouble(self, part: str, cause: str) -> None:
        """Something is wrong with a part. `cause` is for operators, without secrets or personal data."""
        if self._troubles.get(part) != cause:
            self._troubles[part] = cause
            TROUBLE.labels(part=part).set(1)
            log.error("trouble", subject=part, cause=cause)

    def fine(self, part: str) -> None:
        """Nothing is wrong with a part any more."""
        if self._troubles.pop(part, None) is not None:
            TROUBLE.labels(part=part).set(0)
            log.info("trouble_over", subject=part)

    def set(self, part: str, cause: str | None) -> None:
        """`trouble` or, without a cause, `fine`."""
        if cause is None:
            self.fine(part)
        else:
            self.trouble(part, cause)

    def beat(self, part: str) -> None:
        """A loop went round. One that does not for STUCK_S is stuck."""
        self._beats[part] = time.monotonic()

    def end(self, part: str) -> None:
        """A loop ended because it was told to."""
        self._beats.pop(part, None)

    def troubles(self) -> dict[str, str]:
        """Part -> cause, of all that is wrong now."""
        now = time.monotonic()
        for part, at in self._beats.items():
            self.set(f"loop {part}", f"no sign of life for {STUCK_S:.0f} s" if now - at > STUCK_S else None)
        return dict(self._troubles)
