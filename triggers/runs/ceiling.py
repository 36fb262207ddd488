"""Refuses to queue a run when the queue of the environment is full (SPEC §4), also if several requests come at once."""

from dataclasses import dataclass
from uuid import UUID

from pipedai.api.errors import CeilingReached
from pipedai.sql import fetch_one, fetch_row
from triggers.runs.conditions import IS_COUNTED_AS_QUEUED
from workspaces.ceilings import PROFILE
from workspaces.locks import lock_environment

# How many transactions can be queueing a run at the same moment, at most: PostgreSQL has fewer connections than this.
_UNDER_WAY = 500

# The environment of a trigger that can be run.
_ENVIRONMENT = """
SELECT environment_id FROM trigger
WHERE id = %(trigger_id)s AND enabled AND (worker_id IS NOT NULL OR pool_id IS NOT NULL) AND deleted_at IS NULL
"""
_COUNT = f"""
SELECT own.most, (
    SELECT count(*) FROM (
        SELECT FROM run r WHERE r.environment_id = e.id AND {IS_COUNTED_AS_QUEUED} LIMIT own.most) r) AS waiting
FROM environment e JOIN workspace w ON w.id = e.workspace_id,
LATERAL (SELECT greatest((w.ceilings ->> 'queuedRuns')::int, %(limit)s) AS most) own
WHERE e.id = %(environment_id)s
"""


@dataclass
class QueueRoom:
    """The room in an environment's queue, which a transaction has counted once for all the runs that it queues."""

    # How many more runs it may queue.
    left: int
    # The ceiling of the environment.
    most: int

    def check(self, trigger_id: UUID) -> None:
        """Raises CeilingReached if no run is left. If the trigger can't be run it does nothing, because the caller then
        tells that.
        """
        if self.left <= 0 and fetch_one(_ENVIRONMENT, {"trigger_id": trigger_id}) is not None:
            raise CeilingReached(
                "queuedRuns",
                f"The environment has {self.most} queued runs, as many as it may.",
            )


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


def take_turns(environment_id: UUID, number: int) -> QueueRoom:
    """Returns how much room there is for `number` runs of different triggers. It counts the queue once for all of them,
    and locks the environment first if the queue is long. Call it before any trigger is locked.
    """
    limit = max(0, room_without_turns() - 2 * number)
    return _room_if_crowded(environment_id, limit) or QueueRoom(number, PROFILE["queuedRuns"])


def check_queue_room(trigger_id: UUID) -> None:
    """Raises CeilingReached if the environment has as many queued runs as it may. Call it before the trigger is locked.
    With `room_without_turns()` runs or more it locks the environment and counts them all. Schedules and retries don't
    call it. If the trigger can't be run it does nothing, because the caller may then hold the trigger's lock, which
    comes after the environment's.
    """
    trigger = fetch_one(_ENVIRONMENT, {"trigger_id": trigger_id})
    if trigger is None:
        return
    room = _room_if_crowded(trigger["environment_id"], room_without_turns())
    if room is not None:
        room.check(trigger_id)


def _room_if_crowded(environment_id: UUID, limit: int) -> QueueRoom | None:
    """Locks the environment and counts its queue if that has `limit` runs or more, or else returns None."""
    params = {"environment_id": environment_id, "limit": limit}
    if not fetch_row(_IS_CROWDED, params)["it_is"]:
        return None
    lock_environment(environment_id)
    queue = fetch_row(_COUNT, {**params, "limit": PROFILE["queuedRuns"]})
    return QueueRoom(queue["most"] - queue["waiting"], queue["most"])
