"""Moves queued runs between the workers of pools, and wakes the workers that may take them (SPEC §16)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from pipedai.sql import Row, execute, fetch_all, fetch_one
from pipedai.wakeups import wake_pools, wake_workers
from triggers.runs import statements as sql

_IS_MEMBER = "SELECT FROM pool_member WHERE pool_id = %(pool_id)s AND worker_id = %(worker_id)s"


def wake_for(runs: Iterable[Row], *, also: Iterable[UUID | None] = ()) -> None:
    """On commit, wakes each run's own worker, as many workers of each pool as it has runs, and `also`."""
    runs = list(runs)
    wake_workers([*(run["worker_id"] for run in runs), *also])
    wake_pools(Counter(run["pool_id"] for run in runs if run["pool_id"] is not None))


def freed_slots(ended: Iterable[Row]) -> list[Row]:
    """Returns for each slot of a trigger that one of these ended runs has freed who may take it, as `wake_for` reads
    it from a run.
    """
    return [
        {"worker_id": run["trigger_worker_id"], "pool_id": run["trigger_pool_id"]}
        for run in ended
        if run["max_concurrent_runs"] is not None
    ]


def is_member(pool_id: UUID | None, worker_id: UUID) -> bool:
    params = {"pool_id": pool_id, "worker_id": worker_id}
    return pool_id is not None and fetch_one(_IS_MEMBER, params) is not None


def open_to_pools(
    worker_ids: Sequence[UUID], *, until: datetime | None = None, now: datetime | None = None
) -> None:
    """Lets others of the pools take the runs at once that these workers would take first. `until` is the end of a usage
    limit, for which runs that continue a session wait. The caller has locked the workers.
    """
    params = {"worker_ids": list(worker_ids), "until": until, "now": now}
    opened = fetch_all(sql.OPEN_TO_POOLS, params)
    wake_pools(Counter(run["pool_id"] for run in opened if run["pool_id"] is not None))


def give_trigger_slots(*, environment_id: UUID, trigger_id: UUID) -> None:
    """Numbers the held runs of a trigger that has just got a limit of such runs.

    The caller has locked the environment's workers, so that no claim is under way, and then the trigger.
    """
    execute(sql.TAKE_TRIGGER_SLOTS, {"trigger_id": trigger_id, "environment_id": environment_id})
    execute(sql.GIVE_TRIGGER_SLOTS, {"trigger_id": trigger_id})
