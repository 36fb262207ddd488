"""Keeps an environment's queue below its ceiling (SPEC §4), also when requests race for the last place."""

from uuid import UUID

from django.conf import settings

from pipedai.sql import fetch_one
from workspaces.ceilings import check_ceiling
from workspaces.locks import lock_environment

# More than the transactions that can be under way at once: PostgreSQL's connections are fewer.
_UNDER_WAY = 500

_COUNT = """
SELECT t.environment_id, waiting.number AS waiting
FROM trigger t, LATERAL (
    SELECT count(*) AS number FROM (
        SELECT FROM run r WHERE r.environment_id = t.environment_id AND r.status = 'queued' LIMIT %(limit)s) r) waiting
WHERE t.id = %(trigger_id)s AND t.enabled AND t.worker_id IS NOT NULL AND t.deleted_at IS NULL
"""


def room_without_turns() -> int:
    """Up to how many queued runs of an environment nobody waits for anybody: below half of the ceiling, whoever counts
    at the same moment can't fill the other half.
    """
    return max(0, settings.MAX_QUEUED_RUNS_PER_ENVIRONMENT // 2 - _UNDER_WAY)


def check_queue_room(trigger_id: UUID) -> None:
    """Raises CeilingReached if the trigger's environment has as many queued runs as it may.

    Call it in the transaction that queues one, before that locks the trigger. Where there is no room without turns,
    requests take turns by the lock on the environment's row, and count again. Schedules and retries are not held back.
    Nothing is locked or raised for a trigger that can't be run: somebody who waited for the change that made it so has
    its lock, and the environment's comes first.
    """
    limit = settings.MAX_QUEUED_RUNS_PER_ENVIRONMENT
    params = {"trigger_id": trigger_id, "limit": limit}
    queue = fetch_one(_COUNT, params)
    if queue is not None and queue["waiting"] >= room_without_turns():
        lock_environment(queue["environment_id"])
        queue = fetch_one(_COUNT, params)
    if queue is not None:
        check_ceiling("queuedRuns", "queued runs", held=queue["waiting"], limit=limit)
