"""Structured logs (a constant event name and fields, ids only) and the metrics every process has."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram

HTTP_SECONDS = Histogram("http_request_seconds", "Time to answer a request", ["service", "method", "route", "status"])
TROUBLE = Gauge("process_trouble", "1 while something is wrong with a part of the process", ["part"])
OUTBOX_AGE = Gauge("outbox_oldest_seconds", "Age of the oldest row not handed on", ["channel"])
UNDELIVERABLE = Counter("outbox_undeliverable_total", "Payloads put aside for good", ["channel", "reason"])
LAG = Gauge("consumer_lag_records", "Records of a partition not applied yet", ["topic", "partition"])
LAG_SECONDS = Gauge("consumer_lag_seconds", "Age of the oldest record not applied yet", ["topic", "partition"])
HALTED = Gauge(
    "consumer_halted", "1 while a partition waits for somebody to choose where to go on", ["topic", "partition"]
)


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
