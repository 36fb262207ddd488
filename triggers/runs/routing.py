"""SQL for from when a pool's workers may take a run of the trigger `t`, and which one is passed over (SPEC §16)."""

from triggers.runs.conditions import is_online


def pool_from(due: str, now: str) -> str:
    """Returns SQL for the time from which the whole pool may take a run that comes due at `due`; NULL without a pool.
    The trigger's worker has `prefer_seconds` for itself, unless at `now` it can't take runs, or no other worker can.
    """
    return f"""CASE WHEN t.pool_id IS NULL THEN NULL
        WHEN t.worker_id IS NOT NULL AND EXISTS (SELECT FROM worker o WHERE o.id = t.worker_id AND {_is_ready(now)})
            AND {_another_is_ready("t.worker_id", now)}
        THEN {due} + t.prefer_seconds * interval '1 second' ELSE {due} END"""


def avoided_worker(failed: str, now: str) -> str:
    """Returns SQL for the worker that a retry passes over: `failed`, if another can take it at `now`, else NULL."""
    return f"""CASE WHEN t.pool_id IS NULL THEN NULL
        WHEN {_another_is_ready(failed, now)} OR EXISTS (
            SELECT FROM worker o WHERE o.id = t.worker_id AND o.id <> {failed} AND {_is_ready(now)})
        THEN {failed} END"""


def _is_ready(now: str) -> str:
    return f"""o.deleted_at IS NULL AND o.token_digest IS NOT NULL AND o.disabled_at IS NULL
    AND (o.limited_until IS NULL OR o.limited_until <= {now})
    AND {is_online("o", now)}"""


def _another_is_ready(worker: str, now: str) -> str:
    return f"""EXISTS (SELECT FROM pool_member m JOIN worker o ON o.id = m.worker_id
            WHERE m.pool_id = t.pool_id AND o.id <> {worker} AND {_is_ready(now)})"""
