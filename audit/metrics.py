"""Counts the audit log's rows by action: it has one for each committed event."""

from prometheus_client import Counter

from pipedai.events import Event
from pipedai.metrics.committed import count_events

ENTRIES = Counter("pipedai_audit_entries", "Rows written to the audit log.", ["action"])


@count_events
def count_entry(event: Event) -> None:
    """Counts a row by its action, one of those that the registry knows."""
    ENTRIES.labels(event.action).inc()
