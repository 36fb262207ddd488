"""Counts, as a metric, the alarms about keys and values that can't be decrypted."""

from typing import Any

from prometheus_client import Counter

from workspaces.encryption.alarms import alarmed

ALARMS = Counter(
    "pipedai_secret_alarms",
    "Alarms about something sealed that does not open: lines secret.cannot_open of the log.",
)


def count_alarm(**_: Any) -> None:
    ALARMS.inc()


alarmed.connect(count_alarm, dispatch_uid="workspaces.metrics")
