"""Names of the metrics of this service; docs/telemetry.md says what each is for."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("segment_events_total", "Events by what became of them", ["outcome"])
DEAD = Counter("segment_dead_letters_total", "Records sent to a dead letter topic", ["reason"])
TRANSITIONS = Counter("segment_transitions_total", "People entering and leaving segments", ["cause", "entered"])
FRESHNESS = Histogram(
    "segment_event_age_seconds",
    "Age of an event when its effect is committed",
    buckets=(0.01, 0.03, 0.1, 0.15, 0.3, 1, 3, 10, 60, 600),
)
OVERDUE = Gauge("segment_flips_overdue", "Profiles whose next flip passed and was not recorded yet")
BACKFILL = Gauge("segment_backfill_done_ratio", "Progress of the running backfill, 0 to 1")
REWRITTEN = Counter("segment_documents_rewritten_total", "Audience documents written again after Redis lost them")
DROPPED = Counter("segment_event_fields_dropped_total", "Fields of events that no message has", ["type"])
QUARANTINED = Gauge("segment_quarantined", "1 while a segment is quarantined: nobody is in it", ["segment"])
DEAR = Counter("segment_dear_people_total", "Times one person took over 150 ms of CPU to decide about")
