"""Inserts old runs of a trigger directly into the tables, for tests that need thousands of them."""

from datetime import datetime
from uuid import UUID

from pipedai.sql import execute

# Every fifth run is the retry of the one before it, every tenth was fired by a tick, and every second has a delivery
# with an attempt. The runs ended a minute apart.
_RUNS = """
INSERT INTO run (
    id, environment_id, trigger_id, revision_id, worker_id, status, source, attempt, max_retries, timeout_seconds,
    retry_of_id, scheduled_for, available_at, queued_at, claimed_at, started_at, ended_at, ended_by, fault_class,
    cost_usd)
SELECT md5(%(salt)s || n)::uuid, t.environment_id, t.id, t.revision_id, t.worker_id,
    CASE WHEN n %% 5 = 4 THEN 'failed' ELSE 'succeeded' END,
    CASE WHEN n %% 5 = 0 THEN 'retry' WHEN n %% 10 = 1 THEN 'schedule' ELSE 'api' END,
    CASE WHEN n %% 5 = 0 THEN 2 ELSE 1 END, t.max_retries, t.timeout_seconds,
    CASE WHEN n %% 5 = 0 THEN md5(%(salt)s || (n - 1))::uuid END,
    CASE WHEN n %% 10 = 1 THEN moment END, moment, moment, moment, moment, moment, 'worker',
    CASE WHEN n %% 5 = 4 THEN 'infra' ELSE 'none' END, 0.01
FROM trigger t, generate_series(1, %(count)s) n, LATERAL (SELECT %(first)s + n * interval '1 minute' AS moment) m
WHERE t.id = %(trigger_id)s
"""
_BESIDE = (
    """
    INSERT INTO run_text (run_id, environment_id, mcp_url)
    SELECT id, environment_id, 'https://mcp.example/v1' FROM run WHERE trigger_id = %(trigger_id)s
    """,
    """
    INSERT INTO tick (id, environment_id, trigger_id, tick_at, last_tick_at, decision, run_id, missed_count)
    SELECT id, environment_id, trigger_id, scheduled_for, scheduled_for, 'fired', id, 0
    FROM run WHERE trigger_id = %(trigger_id)s AND source = 'schedule'
    """,
    """
    INSERT INTO delivery (id, environment_id, trigger_id, run_id, message_id, url, host, body, status,
        next_attempt_at, created_at, delivered_at)
    SELECT id, environment_id, trigger_id, id, id::text, 'https://hooks.example/', 'hooks.example', '{}', 'delivered',
        NULL, ended_at, ended_at
    FROM run WHERE trigger_id = %(trigger_id)s AND ('x' || right(id::text, 1))::bit(4)::int %% 2 = 0
    """,
    """
    INSERT INTO delivery_attempt (delivery_id, n, environment_id, at, status_code, duration_ms)
    SELECT id, 1, environment_id, created_at, 200, 5 FROM delivery WHERE trigger_id = %(trigger_id)s
    """,
)


def add_old_runs(trigger_id: UUID, count: int, first: datetime) -> None:
    """Inserts `count` ended runs, a minute apart, of a trigger that has no runs yet."""
    params = {"trigger_id": trigger_id, "count": count, "first": first, "salt": str(trigger_id)}
    for statement in (_RUNS, *_BESIDE):
        execute(statement, params)
