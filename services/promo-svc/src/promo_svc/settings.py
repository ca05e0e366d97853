"""Settings of promo-svc, read once from PROMO_* (or PROMO_*_FILE for secrets)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses and secrets. An empty `kafka_bootstrap` means that no facts are published."""

    database_url: str
    redis_url: str
    service_secret: str
    kafka_bootstrap: str = ""
    host: str = "127.0.0.1"
    port: int = 8103
    metrics_port: int = 0
