"""Picks the due triggers that the scheduler handles next, so that no workspace must wait for another (SPEC §19).

Each batch is split between all workspaces; inside one, triggers that have been due longest come first.
"""

from datetime import datetime

from pipedai.sql import NOW, Row, fetch_all

# How many pairs of a due time and an environment a batch reads, at most. Due times are whole minutes, so thousands of
# due triggers have few of them. The query reads the index `trigger_due_in_environment` once for each pair, which takes
# some microseconds, and so finds every environment with due triggers without reading all triggers. Unless no scheduler
# ran for a while, there are hardly more pairs than environments with due triggers.
_MOST_PAIRS = 5_000

# Locks the due triggers of a batch. `position` is where a pair (a due time and an environment) stands in the queue
# of its workspace, and `size` is how many triggers of the batch each workspace gets. If a workspace has several pairs,
# they share its part. Triggers that another scheduler has locked are skipped.
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
    SELECT due.next_run_at, due.environment_id, e.workspace_id, e.paused_at IS NOT NULL AS paused,
        count(*) OVER workspace AS pairs,
        row_number() OVER (workspace ORDER BY due.next_run_at, random()) AS position
    FROM due JOIN environment e ON e.id = due.environment_id
    WINDOW workspace AS (PARTITION BY e.workspace_id)),
share AS (
    SELECT ceil(%(limit)s::numeric / greatest(count(DISTINCT workspace_id), 1))::int AS size FROM queue),
turn AS (
    SELECT next_run_at, environment_id, paused, ceil(size::numeric / least(pairs, size))::int AS most
    FROM queue CROSS JOIN share WHERE position <= size ORDER BY position, random())
SELECT t.*, turn.paused, {NOW} AS now FROM turn CROSS JOIN LATERAL (
    SELECT id, environment_id, worker_id, pool_id, schedule, timezone, run_once_at, next_run_at, overlap_policy
    FROM trigger WHERE next_run_at = turn.next_run_at AND environment_id = turn.environment_id
    ORDER BY id LIMIT turn.most
    FOR NO KEY UPDATE SKIP LOCKED) t
LIMIT %(limit)s
"""


def lock_due_triggers(*, limit: int, now: datetime | None = None) -> list[Row]:
    """Locks up to `limit` due triggers, and returns the columns that `triggers.schedules.firing` needs."""
    return fetch_all(_DUE, {"limit": limit, "most_pairs": _MOST_PAIRS, "now": now})
