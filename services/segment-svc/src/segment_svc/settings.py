"""Settings of segment-svc, read once from SEGMENT_* (or SEGMENT_*_FILE for secrets)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses, secrets and limits. An empty `kafka_bootstrap` means events come over HTTP only."""

    database_url: str
    redis_url: str
    service_secret: str
    kafka_bootstrap: str = ""
    content_url: str = ""
    promo_url: str = ""
    host: str = "127.0.0.1"
    port: int = 8101
    metrics_port: int = 0
    group: str = "segment-svc"
    instance_id: str = ""
    session_timeout_ms: int = 10_000
    max_records: int = 2000
    horizon_ms: int = 24 * 3600 * 1000
    lead_ms: int = 3600 * 1000
    time_zone: str = "UTC"
