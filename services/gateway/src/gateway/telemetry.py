"""Names of the metrics of the gateway; docs/telemetry.md says what each is for."""

from prometheus_client import Counter

DECISIONS = Counter("gateway_decisions_total", "Decisions by where the answer came from", ["source"])
DEGRADED = Counter("gateway_degraded_total", "Parts of answers that had to be made up", ["part"])
PURGES = Counter("gateway_purges_total", "Purge requests to edge caches", ["result"])
PROBES = Counter("gateway_probes_total", "Edges asked whether they tell people apart", ["result"])
COLLECTED = Counter("gateway_collected_total", "Events the collector saw", ["result"])
