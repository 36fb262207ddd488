"""The metrics of what the service sends, by kind: webhooks, notices, mails."""

from collections.abc import Iterator
from typing import Any

from django.dispatch import receiver
from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric

from pipedai.metrics.database import ROW_LIMIT, read_at_scrape
from pipedai.outgoing.attempts import attempted
from pipedai.outgoing.kinds import Kind, SendStatus
from pipedai.outgoing.pool import registered_kinds
from pipedai.outgoing.posts import Answer, Result
from pipedai.sql import fetch_row

ATTEMPTS = Counter(
    "pipedai_outgoing_attempts",
    "Attempts to send a message; `away` is our own mail server's failure.",
    ["kind", "result"],
)
SETTLED = Counter(
    "pipedai_outgoing_settled", "Messages that were delivered, or given up.", ["kind", "status"]
)


@receiver(attempted, dispatch_uid="pipedai.metrics.outgoing")
def count_attempt(kind: Kind, status: SendStatus, answer: Answer, **_: Any) -> None:
    ATTEMPTS.labels(kind.name, answer.result.value).inc()
    if status is not SendStatus.PENDING:
        SETTLED.labels(kind.name, status.value).inc()


def start_at_zero() -> None:
    """Makes each counter 0 for each registered kind, because a rate would otherwise miss the first event."""
    for kind in registered_kinds():
        for result in Result:
            ATTEMPTS.labels(kind.name, result.value)
        for status in (SendStatus.DELIVERED, SendStatus.DEAD):
            SETTLED.labels(kind.name, status.value)


_WAITING = """
SELECT count(*) AS pending,
    coalesce(greatest(extract(epoch FROM statement_timestamp() - min(next_attempt_at)), 0), 0) AS overdue
FROM (SELECT next_attempt_at FROM {table} WHERE status = 'pending' ORDER BY next_attempt_at LIMIT %(limit)s) d
"""


@read_at_scrape
def read_waiting() -> Iterator[Metric]:
    pending = GaugeMetricFamily(
        "pipedai_outgoing_pending",
        "Messages that are neither delivered nor given up.",
        labels=["kind"],
    )
    overdue = GaugeMetricFamily(
        "pipedai_outgoing_overdue_seconds",
        "How long the message has been due that waits longest to be sent; 0 if none does.",
        labels=["kind"],
    )
    for kind in registered_kinds():
        row = fetch_row(_WAITING.format(table=kind.table), {"limit": ROW_LIMIT})
        pending.add_metric([kind.name], float(row["pending"]))
        overdue.add_metric([kind.name], float(row["overdue"]))
    yield pending
    yield overdue
