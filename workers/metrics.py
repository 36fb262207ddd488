"""Metrics of workers and of queued runs, read from the database whenever the metrics are requested."""

from pipedai.metrics.database import register_gauges
from triggers.runs.conditions import is_online

# Queued runs are counted by their worker's state, because many runs for a worker that is switched off are no problem.
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

read_queue = register_gauges(
    _QUEUE,
    {
        "queued": ("pipedai_queue_runs", "Queued runs."),
        "due": ("pipedai_queue_due_runs", "Queued runs that are due."),
        "age": (
            "pipedai_queue_oldest_due_seconds",
            "How long the oldest queued run has been due; 0 if none is.",
        ),
    },
    by="worker",
    words=("online", "offline", "none"),
)
read_workers = register_gauges(
    _ONLINE, {"online": ("pipedai_workers_online", "Workers that are online.")}
)
