"""Metrics of keys: the alarms about what does not open."""

from typing import Any

from prometheus_client import Counter

from workspaces.encryption.alarms import alarmed

ALARMS = Counter(
    "pipedai_secret_alarms",
    "Alarms about something sealed that does not open: lines secret.cannot_open of the log.",
)


def count_alarm(**_: Any) -> None:
    """Counts an alarm that was raised."""
    ALARMS.inc()


alarmed.connect(count_alarm, dispatch_uid="workspaces.metrics")
