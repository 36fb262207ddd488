"""The metrics of values that can't be decrypted, and of connections and the refreshing of their tokens."""

from typing import Any

from django.dispatch import receiver
from prometheus_client import Counter, Histogram

from pipedai.metrics.database import register_gauges
from workspaces.connections.models import Connection
from workspaces.connections.refreshing import RESULTS, refreshed
from workspaces.encryption.keys import alarmed

ALARMS = Counter(
    "pipedai_secret_alarms",
    "Alarms about something encrypted that does not open: lines secret.cannot_open of the log.",
)
REFRESH_SECONDS = Histogram(
    "pipedai_connection_refresh_duration_seconds",
    "Time that asking for the token of a connection and recording the answer took.",
    ["result"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)


@receiver(alarmed, dispatch_uid="workspaces.metrics")
def count_alarm(**_: Any) -> None:
    ALARMS.inc()


@receiver(refreshed, dispatch_uid="workspaces.metrics")
def observe_refresh(result: str, seconds: float, **_: Any) -> None:
    REFRESH_SECONDS.labels(result).observe(seconds)


for _result in RESULTS:
    REFRESH_SECONDS.labels(_result)

# A connection that waits after a failure does not count as due.
read_due = register_gauges(
    """
SELECT count(*) AS due,
    coalesce(greatest(extract(epoch FROM statement_timestamp() - min(refresh_at)), 0), 0) AS overdue
FROM (
    SELECT refresh_at FROM connection WHERE refresh_at <= statement_timestamp()
    ORDER BY refresh_at LIMIT %(limit)s) c
""",
    {
        "due": ("pipedai_connections_due", "Connections whose token is to be refreshed."),
        "overdue": (
            "pipedai_connection_overdue_seconds",
            "How long the connection has been due that waits longest to be refreshed; 0 if none does.",
        ),
    },
)
# The subquery reads the index `connection_troubled` alone.
read_troubled = register_gauges(
    """
SELECT status, count(*) AS connections FROM (
    SELECT status FROM connection WHERE status IN ('failing', 'needs_login') LIMIT %(limit)s) c
GROUP BY status
""",
    {
        "connections": (
            "pipedai_connections_troubled",
            "Connections whose token could not be refreshed.",
        )
    },
    by="status",
    words=(Connection.Status.FAILING.value, Connection.Status.NEEDS_LOGIN.value),
)
