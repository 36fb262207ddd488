"""Says in SQL from when the workers of its pool may take a new run, and which worker is passed over (SPEC §16).

The expressions are about a trigger with the alias `t`. They look at workers only if the trigger has a pool.
"""

from triggers.runs.conditions import is_online


def pool_from(due: str, now: str) -> str:
    """Returns the SQL expression for the time from which all workers of the trigger's pool may take a run.

    `due` and `now` are SQL expressions: when the run comes due, and the time at which workers are looked at. The result
    is NULL if the trigger has no pool. The trigger's worker has `prefer_seconds` for itself, but none if it is
    disabled, limited or offline, or if no other worker of the pool could take the run instead.
    """
    return f"""CASE WHEN t.pool_id IS NULL THEN NULL
        WHEN t.worker_id IS NOT NULL AND EXISTS (SELECT FROM worker o WHERE o.id = t.worker_id AND {_is_ready(now)})
            AND {_another_is_ready("t.worker_id", now)}
        THEN {due} + t.prefer_seconds * interval '1 second' ELSE {due} END"""


def avoided_worker(failed: str, now: str) -> str:
    """Returns the SQL expression for the worker that a retry passes over: `failed`, an SQL expression for the worker
    that failed the run, if another worker could take the retry at the time `now`. Otherwise it is NULL.
    """
    return f"""CASE WHEN t.pool_id IS NULL THEN NULL
        WHEN {_another_is_ready(failed, now)} OR EXISTS (
            SELECT FROM worker o WHERE o.id = t.worker_id AND o.id <> {failed} AND {_is_ready(now)})
        THEN {failed} END"""


def _is_ready(now: str) -> str:
    """Returns the condition that a worker `o` could take a run at the time `now`, if it has room."""
    return f"""o.deleted_at IS NULL AND o.token_digest IS NOT NULL AND o.disabled_at IS NULL
    AND (o.limited_until IS NULL OR o.limited_until <= {now})
    AND {is_online("o", now)}"""


def _another_is_ready(worker: str, now: str) -> str:
    return f"""EXISTS (SELECT FROM pool_member m JOIN worker o ON o.id = m.worker_id
            WHERE m.pool_id = t.pool_id AND o.id <> {worker} AND {_is_ready(now)})"""
