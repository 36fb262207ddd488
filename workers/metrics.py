"""Metrics of workers and of queued runs, read from the database whenever the metrics are requested."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from pipedai.metrics.database import ROW_LIMIT, read_at_scrape
from pipedai.sql import fetch_all, fetch_row
from triggers.runs.conditions import is_online

# Queued runs are counted by their worker's state, as many of a worker that is switched off mean no trouble.
_ONLINE_NOW = is_online("w", "statement_timestamp()")
_QUEUE = f"""
SELECT CASE WHEN r.worker_id IS NULL THEN 'none'
        WHEN w.disabled_at IS NULL AND {_ONLINE_NOW} THEN 'online'
        ELSE 'offline' END AS worker,
    count(*) AS queued,
    count(*) FILTER (WHERE available_at <= statement_timestamp()) AS due,
    coalesce(greatest(extract(epoch FROM statement_timestamp() - min(available_at)), 0), 0) AS age
FROM (SELECT worker_id, available_at FROM run WHERE status = 'queued' LIMIT %(limit)s) r
LEFT JOIN worker w ON w.id = r.worker_id
GROUP BY 1
"""  # noqa: S608

_ONLINE = f"""
SELECT count(*) AS online
FROM (SELECT last_seen_at, signed_off_at FROM worker WHERE deleted_at IS NULL LIMIT %(limit)s) w
WHERE {_ONLINE_NOW}
"""  # noqa: S608

_PARAMS = {"limit": ROW_LIMIT}


@read_at_scrape
def read_queue() -> Iterator[Metric]:
    """Yields how many runs are due and for how long, by `worker`: `online`, `offline` (or disabled), `none`."""
    rows = {row["worker"]: row for row in fetch_all(_QUEUE, _PARAMS)}
    queued = GaugeMetricFamily("pipedai_queue_runs", "Queued runs.", labels=["worker"])
    due = GaugeMetricFamily(
        "pipedai_queue_due_runs", "Queued runs that are due.", labels=["worker"]
    )
    age = GaugeMetricFamily(
        "pipedai_queue_oldest_due_seconds",
        "How long the oldest queued run has been due; 0 if none is.",
        labels=["worker"],
    )
    nothing = {"queued": 0, "due": 0, "age": 0}
    for worker in ("online", "offline", "none"):
        row = rows.get(worker, nothing)
        queued.add_metric([worker], row["queued"])
        due.add_metric([worker], row["due"])
        age.add_metric([worker], float(row["age"]))
    yield from (queued, due, age)


@read_at_scrape
def read_workers() -> Iterator[Metric]:
    """Yields the number of workers that are online."""
    row = fetch_row(_ONLINE, _PARAMS)
    yield GaugeMetricFamily(
        "pipedai_workers_online", "Workers that are online.", value=row["online"]
    )
