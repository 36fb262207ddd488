"""Counts, for the metrics, the audit log's rows by action. Each committed event has one row."""

from prometheus_client import Counter

from pipedai.events import Event
from pipedai.metrics.committed import count_events

ENTRIES = Counter("pipedai_audit_entries", "Rows written to the audit log.", ["action"])


@count_events
def count_entry(event: Event) -> None:
    """Counts one row. Its action is one of the registry's, so the label has few values."""
    ENTRIES.labels(event.action).inc()
