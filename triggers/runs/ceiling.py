"""Refuses a run when its environment's queue is full (SPEC §4), also when several requests race for the last place."""

from uuid import UUID

from django.conf import settings

from pipedai.sql import fetch_one
from workspaces.ceilings import check_ceiling
from workspaces.locks import lock_environment

# An upper bound for the transactions that can be queueing a run at one moment: PostgreSQL has fewer connections.
_UNDER_WAY = 500

_COUNT = """
SELECT t.environment_id, waiting.number AS waiting
FROM trigger t, LATERAL (
    SELECT count(*) AS number FROM (
        SELECT FROM run r WHERE r.environment_id = t.environment_id AND r.status = 'queued' LIMIT %(limit)s) r) waiting
WHERE t.id = %(trigger_id)s AND t.enabled AND t.worker_id IS NOT NULL AND t.deleted_at IS NULL
"""


def room_without_turns() -> int:
    """Returns below how many queued runs of an environment a request may queue another one without a lock.

    It is half of the ceiling, less the requests that can be counting at the same moment: together they cannot fill the
    other half, so they need not wait for each other.
    """
    return max(0, settings.MAX_QUEUED_RUNS_PER_ENVIRONMENT // 2 - _UNDER_WAY)


def check_queue_room(trigger_id: UUID) -> None:
    """Raises CeilingReached if the trigger's environment has as many queued runs as it may have.

    Call it in the transaction that queues the run, before that transaction locks the trigger. When the queue has
    reached `room_without_turns()`, requests take turns: each locks the environment's row and counts again. Schedules
    and retries do not call this, so the ceiling does not hold them back.

    For a trigger that cannot be run this locks nothing and raises nothing. The caller may then hold the trigger's lock
    already, because it waited for the change that disabled the trigger, and the environment must be locked before the
    trigger.
    """
    limit = settings.MAX_QUEUED_RUNS_PER_ENVIRONMENT
    params = {"trigger_id": trigger_id, "limit": limit}
    queue = fetch_one(_COUNT, params)
    if queue is not None and queue["waiting"] >= room_without_turns():
        lock_environment(queue["environment_id"])
        queue = fetch_one(_COUNT, params)
    if queue is not None:
        check_ceiling("queuedRuns", "queued runs", held=queue["waiting"], limit=limit)
