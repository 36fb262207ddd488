"""Counts the audit log's new rows by action, as a metric. Each committed domain event has one row."""

from prometheus_client import Counter

from pipedai.events import Event, on_committed

ENTRIES = Counter("pipedai_audit_entries", "Rows written to the audit log.", ["action"])


@on_committed
def count_entry(event: Event) -> None:
    """Counts one audit row under its action. The metric has few labels, since there are few actions."""
    ENTRIES.labels(event.action).inc()
