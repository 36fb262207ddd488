"""Refuses to queue a run when the queue of the environment is full (SPEC §4), also if several requests come at once."""

from uuid import UUID

from pipedai.api.errors import CeilingReached
from pipedai.sql import fetch_one, fetch_row
from triggers.runs.conditions import IS_COUNTED_AS_QUEUED
from workspaces.ceilings import PROFILE
from workspaces.locks import lock_environment

# How many transactions can be queueing a run at the same moment, at most: PostgreSQL has fewer connections than this.
_UNDER_WAY = 500

_COUNT = f"""
SELECT t.environment_id, own.most, waiting.number AS waiting
FROM trigger t JOIN environment e ON e.id = t.environment_id JOIN workspace w ON w.id = e.workspace_id,
LATERAL (SELECT greatest((w.ceilings ->> 'queuedRuns')::int, %(limit)s) AS most) own,
LATERAL (
    SELECT count(*) AS number FROM (
        SELECT FROM run r WHERE r.environment_id = t.environment_id AND {IS_COUNTED_AS_QUEUED} LIMIT own.most
        ) r) waiting
WHERE t.id = %(trigger_id)s AND t.enabled AND (t.worker_id IS NOT NULL OR t.pool_id IS NOT NULL)
    AND t.deleted_at IS NULL
"""


def room_without_turns() -> int:
    """Returns how many runs an environment may have in its queue before requests for more runs must lock the
    environment. Below this number, requests queue runs without taking turns.

    The number is half of the ceiling, less the number of requests that can count the queue at the same moment. Even if
    all these requests queue a run at once, the queue stays below the ceiling. It is the same where staff have raised
    the ceiling, so that the statement that queues a run need not read that.
    """
    return max(0, PROFILE["queuedRuns"] // 2 - _UNDER_WAY)


_IS_CROWDED = f"""
SELECT count(*) >= %(limit)s AS it_is FROM (
    SELECT FROM run r WHERE r.environment_id = %(environment_id)s AND {IS_COUNTED_AS_QUEUED} LIMIT %(limit)s) r
"""


def take_turns(environment_id: UUID, number: int) -> None:
    """Locks the environment if its queue is so long that `number` more runs may have to be counted one after the other.
    Who queues runs of several triggers calls it first, because the environment must be locked before any trigger.
    """
    limit = max(0, room_without_turns() - 2 * number)
    params = {"environment_id": environment_id, "limit": limit}
    if fetch_row(_IS_CROWDED, params)["it_is"]:
        lock_environment(environment_id)


def check_queue_room(trigger_id: UUID) -> None:
    """Raises CeilingReached if the environment has as many queued runs as it may. Call it before the trigger is locked.
    With `room_without_turns()` runs or more it locks the environment and counts again. Schedules and retries don't call
    it. If the trigger can't be run it does nothing, because the caller may then hold the trigger's lock, which comes
    after the environment's.
    """
    params = {"trigger_id": trigger_id, "limit": PROFILE["queuedRuns"]}
    queue = fetch_one(_COUNT, params)
    if queue is not None and queue["waiting"] >= room_without_turns():
        lock_environment(queue["environment_id"])
        queue = fetch_one(_COUNT, params)
    if queue is not None and queue["waiting"] >= queue["most"]:
        raise CeilingReached(
            "queuedRuns", f"The environment has {queue['most']} queued runs, as many as it may."
        )
