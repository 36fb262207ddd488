"""Refuses to queue a run when the queue of the environment is full (SPEC §4), also if several requests come at once."""

from uuid import UUID

from django.conf import settings

from pipedai.sql import fetch_one
from triggers.runs.conditions import IS_COUNTED_AS_QUEUED
from workspaces.locks import check_ceiling, lock_environment

# How many transactions can be queueing a run at the same moment, at most: PostgreSQL has fewer connections than this.
_UNDER_WAY = 500

_COUNT = f"""
SELECT t.environment_id, waiting.number AS waiting
FROM trigger t, LATERAL (
    SELECT count(*) AS number FROM (
        SELECT FROM run r WHERE r.environment_id = t.environment_id AND {IS_COUNTED_AS_QUEUED} LIMIT %(limit)s
        ) r) waiting
WHERE t.id = %(trigger_id)s AND t.enabled AND (t.worker_id IS NOT NULL OR t.pool_id IS NOT NULL)
    AND t.deleted_at IS NULL
"""


def room_without_turns() -> int:
    """Returns below how many queued runs requests need no lock: half of the ceiling, less the requests that may count
    at the same moment.
    """
    return max(0, settings.MAX_QUEUED_RUNS_PER_ENVIRONMENT // 2 - _UNDER_WAY)


def check_queue_room(trigger_id: UUID) -> None:
    """Raises CeilingReached if the environment has as many queued runs as it may. Call it before the trigger is locked.
    With `room_without_turns()` runs or more it locks the environment and counts again. Schedules and retries don't call
    it. If the trigger can't be run it does nothing, because the caller may then hold the trigger's lock, which comes
    after the environment's.
    """
    limit = settings.MAX_QUEUED_RUNS_PER_ENVIRONMENT
    params = {"trigger_id": trigger_id, "limit": limit}
    queue = fetch_one(_COUNT, params)
    if queue is not None and queue["waiting"] >= room_without_turns():
        lock_environment(queue["environment_id"])
        queue = fetch_one(_COUNT, params)
    if queue is not None:
        check_ceiling("queuedRuns", "queued runs", held=queue["waiting"], limit=limit)
