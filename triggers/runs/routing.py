"""Decides which workers get queued runs: moves runs between workers and pools, and wakes workers to take them.

Workers whose account has reached its usage limit get no runs until the limit ends.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pipedai.api.renderers import iso_time
from pipedai.events import Actor, Event, emit
from pipedai.sql import NOW, Row, execute, fetch_all, fetch_one, fetch_row
from pipedai.wakeups import wake_pools, wake_workers
from triggers.runs import statements as sql
from triggers.runs.outcome import UsageLimit

_IS_MEMBER = "SELECT FROM pool_member WHERE pool_id = %(pool_id)s AND worker_id = %(worker_id)s"


def wake_for(runs: Iterable[Row], *, also: Iterable[UUID | None] = ()) -> None:
    """On commit, wakes each run's own worker, as many workers of each pool as it has runs, and `also`."""
    runs = list(runs)
    wake_workers([*(run["worker_id"] for run in runs), *also])
    wake_pools(Counter(run["pool_id"] for run in runs if run["pool_id"] is not None))


def freed_slots(ended: Iterable[Row]) -> list[Row]:
    """Returns a row for each slot of a trigger that one of these ended runs has freed: the worker and the pool that may
    take it, in the form that `wake_for` reads.
    """
    return [
        {"worker_id": run["trigger_worker_id"], "pool_id": run["trigger_pool_id"]}
        for run in ended
        if run["max_concurrent_runs"] is not None
    ]


def is_member(pool_id: UUID | None, worker_id: UUID) -> bool:
    params = {"pool_id": pool_id, "worker_id": worker_id}
    return pool_id is not None and fetch_one(_IS_MEMBER, params) is not None


def reassign_queued_runs(*, trigger_id: UUID, now: datetime | None = None) -> None:
    """Moves queued runs to the trigger's present worker and pool. The caller has changed and locked the trigger, so
    that no run is queued for the old ones.
    """
    _reassign(sql.REASSIGN, trigger_id=trigger_id, now=now)


def prefer_anew(*, trigger_id: UUID) -> None:
    """Works out again until when queued runs are only for the trigger's worker. The caller has locked the trigger."""
    _reassign(sql.PREFER_ANEW, trigger_id=trigger_id, now=None)


def reassign_runs_of_worker(*, worker_id: UUID) -> int:
    """Moves the runs that a worker would take alone or first, and returns how many. Runs that only it could continue
    end soon. The caller has locked their triggers and ended the worker's memberships.
    """
    execute(sql.GIVE_UP_WAITING, {"worker_id": worker_id, "now": None})
    return _reassign(sql.REASSIGN_OF_WORKER, worker_id=worker_id, now=None)


def reassign_resuming_runs(*, worker_id: UUID, pool_id: UUID) -> None:
    """Moves those runs of a pool that wait for a session of this worker, unless it is their trigger's worker. The
    caller has taken the worker out of the pool, and has locked the pool's triggers that resume.
    """
    _reassign(sql.REASSIGN_RESUMING, worker_id=worker_id, pool_id=pool_id, now=None)


def _reassign(statement: str, **params: Any) -> int:
    """Reassigns queued runs, wakes old and new workers, and returns how many it moved."""
    moved = fetch_all(statement, params)
    wake_for(moved)
    wake_workers([run["old_worker_id"] for run in moved])
    return len(moved)


def count_unfinished_runs(*, worker_id: UUID) -> int:
    row = fetch_row(sql.COUNT_UNFINISHED, {"worker_id": worker_id})
    return int(row["unfinished"])


def give_trigger_slots(*, environment_id: UUID, trigger_id: UUID) -> None:
    """Numbers the held runs of a trigger that has just got a limit of such runs.

    The caller has locked the environment's workers, so that no claim is under way, and then the trigger.
    """
    execute(sql.TAKE_TRIGGER_SLOTS, {"trigger_id": trigger_id, "environment_id": environment_id})
    execute(sql.GIVE_TRIGGER_SLOTS, {"trigger_id": trigger_id})


def open_to_pools(
    worker_ids: Sequence[UUID], *, until: datetime | None = None, now: datetime | None = None
) -> None:
    """Lets other workers of the pools take at once the runs that these workers would take first. `until` is the end of
    a usage limit, for which runs that continue a session wait. The caller has locked the workers.
    """
    params = {"worker_ids": list(worker_ids), "until": until, "now": now}
    opened = fetch_all(sql.OPEN_TO_POOLS, params)
    wake_pools(Counter(run["pool_id"] for run in opened if run["pool_id"] is not None))


# The longest time for which a report limits workers, so that a report with a wrong time does not stop them for good.
LONGEST = "8 days"

# Workers of one account start again at random times within this many seconds, so that not all start at once.
JITTER_SECONDS = 60

# Locks a worker, and the workers of its environment that have the same account.
_LOCK_ACCOUNT = """
SELECT o.id FROM worker w JOIN worker o ON o.id = w.id
    OR (o.environment_id = w.environment_id AND o.account_id = w.account_id AND o.deleted_at IS NULL)
WHERE w.id = %(worker_id)s
ORDER BY o.id FOR NO KEY UPDATE OF o
"""

_LIMIT = f"""
UPDATE worker SET limited_until = greatest(
    limited_until,
    least(greatest(%(resets_at)s, {NOW}), {NOW} + interval '{LONGEST}')
        + random() * interval '{JITTER_SECONDS} seconds')
WHERE id = ANY(%(worker_ids)s)
RETURNING id, environment_id, limited_until
"""


def lock_account(worker_id: UUID) -> list[UUID]:
    """Locks the worker and the other workers of its account, and returns their ids. Call it before triggers or runs are
    locked (docs/architecture.md).
    """
    return [row["id"] for row in fetch_all(_LOCK_ACCOUNT, {"worker_id": worker_id})]


def limit_workers(
    worker_ids: list[UUID], limit: UsageLimit, *, actor: Actor, now: datetime | None = None
) -> None:
    """Gives these workers, which `lock_account` has locked, no runs until the limit ends. Other workers of their pools
    may take their queued runs at once, except those that continue a session.
    """
    params = {"worker_ids": worker_ids, "resets_at": limit.resets_at, "now": now}
    limited = fetch_all(_LIMIT, params)
    until = max(row["limited_until"] for row in limited)
    open_to_pools(worker_ids, until=until, now=now)
    wake_workers(worker_ids)
    metadata = {
        "limitedUntil": iso_time(until),
        "kind": limit.kind,
        "workers": [str(worker_id) for worker_id in worker_ids],
    }
    environment_id = limited[0]["environment_id"]
    emit(Event("worker.limited", actor, environment_id, "worker", actor.id, metadata))
