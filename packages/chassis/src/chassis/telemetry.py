"""Structured logs (a constant event name and fields, ids only) and the metrics every process has."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import Counter, Histogram

HTTP_SECONDS = Histogram("http_request_seconds", "Time to answer a request", ["service", "method", "route", "status"])
OUTBOX_FAILURES = Counter("outbox_failures_total", "Times the relay could not hand its rows on")


def get_logger(name: str) -> Any:
    """A logger bound to the part of the system that speaks."""
    return structlog.get_logger(part=name)


def configure(service: str) -> None:
    """JSON lines on stderr, with the service's name and the time."""

    def stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    structlog.configure(
        processors=[
            stamp,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
