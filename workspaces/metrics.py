"""The metrics of alarms about what can't be decrypted, and of connections and the refreshing of their tokens."""

from collections.abc import Iterator
from typing import Any

from django.dispatch import receiver
from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from pipedai.metrics.database import ROW_LIMIT, read_at_scrape
from pipedai.sql import fetch_all, fetch_row
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

# What waits after a failure is not due.
_DUE = """
SELECT count(*) AS due,
    coalesce(greatest(extract(epoch FROM statement_timestamp() - min(refresh_at)), 0), 0) AS overdue
FROM (
    SELECT refresh_at FROM connection WHERE refresh_at <= statement_timestamp()
    ORDER BY refresh_at LIMIT %(limit)s) c
"""
# The subquery reads the index `connection_troubled` alone.
_TROUBLED = """
SELECT status, count(*) AS connections FROM (
    SELECT status FROM connection WHERE status IN ('failing', 'needs_login') LIMIT %(limit)s) c
GROUP BY status
"""


@read_at_scrape
def read_connections() -> Iterator[Metric]:
    row = fetch_row(_DUE, {"limit": ROW_LIMIT})
    yield GaugeMetricFamily(
        "pipedai_connections_due", "Connections whose token is to be refreshed.", value=row["due"]
    )
    yield GaugeMetricFamily(
        "pipedai_connection_overdue_seconds",
        "How long the connection has been due that waits longest to be refreshed; 0 if none does.",
        value=float(row["overdue"]),
    )
    found = fetch_all(_TROUBLED, {"limit": ROW_LIMIT})
    counts = {row["status"]: row["connections"] for row in found}
    family = GaugeMetricFamily(
        "pipedai_connections_troubled",
        "Connections whose token could not be refreshed.",
        labels=["status"],
    )
    for status in (Connection.Status.FAILING, Connection.Status.NEEDS_LOGIN):
        family.add_metric([status.value], counts.get(status.value, 0))
    yield family
