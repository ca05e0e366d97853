"""Settings of the gateway, read once from GATEWAY_* (or GATEWAY_*_FILE for secrets)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """`keys` is the JSON list of API keys (see adapters/keys.py). `edge_urls` are the caches to purge. `jwks` is inline JSON.

    Keys are apart by purpose: `visitor_keys`, `context_keys`, `edge_keys` (what an edge proves with) and `aud_keys` (audiences in
    URLs) are lists `id:secret`, the newest first (domain/signing.py); `front_key` vouches for the facts of a request,
    `purge_key` opens an edge's PURGE. `cache_keys` is such a list of what caches say that key by the whole URL, and by nothing
    else; `cache_urls` is where each is asked from outside.

    `hosts` are the names the shop is asked by, without ports. Edges count as one address each: `connections_per_address`.
    """

    redis_url: str
    service_secret: str
    visitor_keys: str
    context_keys: str
    edge_keys: str
    aud_keys: str
    front_key: str
    purge_key: str
    keys: str
    segment_url: str
    content_url: str
    promo_url: str
    kafka_bootstrap: str = ""
    edge_urls: tuple[str, ...] = ()
    cache_keys: str = ""
    cache_urls: tuple[str, ...] = ()
    jwks: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = "storefront"
    host: str = "127.0.0.1"
    port: int = 8100
    metrics_port: int = 0
    time_zone: str = "UTC"
    share_s: int = 60
    context_s: int = 600
    budget_ms: int = 250
    person_per_minute: int = 300
    block_per_minute: int = 6000
    key_per_minute: int = 600_000
    events_per_minute: int = 3000
    bytes_per_minute: int = 32 << 20
    connections_per_address: int = 1000
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1")
