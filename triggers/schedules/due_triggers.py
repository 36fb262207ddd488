"""Picks the triggers whose ticks are decided next: workspaces take turns (SPEC §19).

Each batch is split between all workspaces that have something due, so that whoever has one due trigger waits for one
batch and not for a tenant's forty thousand. Inside a workspace, those that have waited longest come first.
"""

from datetime import datetime

from pipedai.sql import NOW, Row, fetch_all

# Ticks lie on whole minutes, so thousands of due triggers have few due times. The index `trigger_due_in_environment`
# begins with the due time and the environment: one look into it for each pair of these finds everybody who has
# something due, however much they have.
#
# How many pairs a batch looks at. A look takes some microseconds; only an outage makes more of them than there are
# environments with something due.
_MOST_PAIRS = 5_000

# `place` is a pair's place in the queue of its workspace, `size` the share of the batch that each workspace has. A
# workspace with many pairs splits its share between them. What another scheduler has locked is skipped.
_DUE = f"""
WITH RECURSIVE due (next_run_at, environment_id, step) AS (
    (SELECT next_run_at, environment_id, 1 FROM trigger WHERE next_run_at <= {NOW}
    ORDER BY next_run_at, environment_id LIMIT 1)
    UNION ALL
    SELECT later.next_run_at, later.environment_id, due.step + 1 FROM due CROSS JOIN LATERAL (
        SELECT next_run_at, environment_id FROM trigger
        WHERE (next_run_at, environment_id) > (due.next_run_at, due.environment_id) AND next_run_at <= {NOW}
        ORDER BY next_run_at, environment_id LIMIT 1) later
    WHERE due.step < %(most_pairs)s),
queue AS (
    SELECT due.next_run_at, due.environment_id, e.workspace_id, count(*) OVER workspace AS places,
        row_number() OVER (workspace ORDER BY due.next_run_at, random()) AS place
    FROM due JOIN environment e ON e.id = due.environment_id
    WINDOW workspace AS (PARTITION BY e.workspace_id)),
share AS (
    SELECT ceil(%(limit)s::numeric / greatest(count(DISTINCT workspace_id), 1))::int AS size FROM queue),
turn AS (
    SELECT next_run_at, environment_id, ceil(size::numeric / least(places, size))::int AS most
    FROM queue CROSS JOIN share WHERE place <= size ORDER BY place, random())
SELECT t.*, {NOW} AS now FROM turn CROSS JOIN LATERAL (
    SELECT id, environment_id, worker_id, revision_id, schedule, timezone, next_run_at, overlap_policy, max_retries,
        timeout_seconds
    FROM trigger WHERE next_run_at = turn.next_run_at AND environment_id = turn.environment_id
    ORDER BY id LIMIT turn.most
    FOR NO KEY UPDATE SKIP LOCKED) t
LIMIT %(limit)s
"""


def lock_due_triggers(*, limit: int, now: datetime | None = None) -> list[Row]:
    """Locks up to `limit` due triggers until the transaction ends, and returns what firing them takes."""
    return fetch_all(_DUE, {"limit": limit, "most_pairs": _MOST_PAIRS, "now": now})
