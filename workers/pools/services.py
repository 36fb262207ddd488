"""Creates, changes and deletes pools, and lets workers join and leave them, each with its audit event."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import CeilingReached, Conflict, NotFound, or_not_found
from pipedai.api.renderers import counted
from pipedai.events import Actor
from pipedai.sql import fetch_all
from pipedai.wakeups import wake_workers
from triggers.models import Trigger
from triggers.runs.routing import reassign_resuming_runs
from triggers.states import RetryMode
from workers.models import Pool, PoolMember, Worker
from workspaces.ceilings import held_and_most
from workspaces.locks import hold_pools, lock_row
from workspaces.models import Workspace
from workspaces.resources import Resource
from workspaces.tenant_columns import keeping_keys


class Pools(Resource[Pool]):
    noun = "pool"
    model = Pool
    # Triggers and workers refer to pools, so a deletion waits for transactions that add such a reference.
    is_referred_to = True

    @contextmanager
    def keeping(self) -> Iterator[None]:
        try:
            with keeping_keys():
                yield
        except IntegrityError:
            raise Conflict(
                "The environment has a pool of this name already.", code=ErrorCode.NAME_TAKEN
            ) from None

    def release(self, pool: Pool) -> None:
        triggers = Trigger.objects.filter(pool_id=pool.id, deleted_at__isnull=True).count()
        if triggers:
            raise Conflict(
                f"The pool still has {counted(triggers, 'trigger')}.", code=ErrorCode.HAS_CHILDREN
            )
        PoolMember.objects.filter(pool_id=pool.id).delete()


POOLS = Pools()


def add_worker(*, pool: Pool, worker_id: UUID, actor: Actor) -> None:
    """Puts a worker into a pool, unless it is there. Raises NotFound, CeilingReached, and the errors of `hold_role`."""
    with transaction.atomic():
        _lock_worker(pool, worker_id, actor)
        joined = or_not_found(
            join_pools(environment_id=pool.environment_id, worker_id=worker_id, pool_ids=[pool.id])
        )
        if joined:
            # The worker's waiting poll asks the database again, because runs of the pool may be due.
            wake_workers([worker_id])
            POOLS.emit("worker-added", pool, actor, {"workerId": str(worker_id)})


def remove_worker(*, pool: Pool, worker_id: UUID, actor: Actor) -> None:
    """Takes a worker out of a pool. The worker finishes the runs that it holds. Runs that wait for one of its sessions
    stop waiting. A repeated call changes nothing. Raises NotFound, and the errors of `hold_role`.
    """
    with transaction.atomic():
        _lock_worker(pool, worker_id, actor)
        if not hold_pools(pool.environment_id, [pool.id]):
            raise NotFound
        if PoolMember.objects.filter(pool_id=pool.id, worker_id=worker_id).delete()[0]:
            lock_resuming_triggers([pool.id])
            reassign_resuming_runs(worker_id=worker_id, pool_id=pool.id)
            POOLS.emit("worker-removed", pool, actor, {"workerId": str(worker_id)})


def _lock_worker(pool: Pool, worker_id: UUID, actor: Actor) -> None:
    rows = Worker.objects.filter(
        id=worker_id, environment_id=pool.environment_id, deleted_at__isnull=True
    )
    lock_row(rows, actor, environment_id=pool.environment_id)


_JOIN = """
INSERT INTO pool_member (environment_id, worker_id, pool_id)
SELECT %(environment_id)s, %(worker_id)s, pool_id FROM unnest(%(pool_ids)s::uuid[]) pool_id
ON CONFLICT DO NOTHING
RETURNING pool_id
"""


def join_pools(
    *, environment_id: UUID, worker_id: UUID, pool_ids: Iterable[UUID]
) -> list[UUID] | None:
    """Makes the worker a member of those pools that exist. Returns the pools that it was not in before, or None if none
    of the pools exists. The caller has locked the environment and the worker. Raises CeilingReached.
    """
    held = hold_pools(environment_id, pool_ids)
    if not held:
        return None
    params = {"environment_id": environment_id, "worker_id": worker_id, "pool_ids": held}
    joined = sorted(row["pool_id"] for row in fetch_all(_JOIN, params))
    if joined:
        workspace = Workspace.objects.filter(environments=environment_id)
        memberships = PoolMember.objects.filter(worker_id=worker_id)
        number, limit = held_and_most("poolsOfWorker", workspace, memberships)
        if number > limit:
            raise CeilingReached(
                "poolsOfWorker", f"The machine may be in {limit} pools, and would be in more."
            )
    return joined


def leave_all_pools(*, environment_id: UUID, worker_id: UUID) -> list[UUID]:
    """Ends all memberships of a worker, and returns the pools. The caller has locked the environment and the worker.
    The pools are locked before the memberships, so that this holds none while it waits for a deletion.
    """
    memberships = PoolMember.objects.filter(worker_id=worker_id)
    left = hold_pools(environment_id, memberships.values_list("pool_id", flat=True))
    memberships.delete()
    return left


def lock_resuming_triggers(
    pool_ids: Sequence[UUID], *, worker_id: UUID | None = None
) -> list[UUID]:
    """Locks the triggers that resume runs in the pools, and those of `worker_id`, and returns their ids. Call it after
    a worker has left. It waits for runs that are ending, because their retries may want a session of the worker.
    """
    of_pools = Q(pool_id__in=pool_ids, retry_mode=RetryMode.RESUME)
    triggers = Trigger.objects.filter(
        of_pools | Q(worker_id__isnull=False, worker_id=worker_id), deleted_at__isnull=True
    )
    locked = triggers.select_for_update(no_key=True).order_by("id")
    return [id_ for id_, owner in locked.values_list("id", "worker_id") if owner == worker_id]


def pools_of_host(key_id: UUID) -> set[UUID]:
    """Returns the pools of all workers that a host brought in. Its further workers may join only these, because members
    of a pool get its triggers' secrets, and so an admin decides which machines are in it.
    """
    own = PoolMember.objects.filter(
        worker__host_key_id=key_id, worker__deleted_at__isnull=True, pool__deleted_at__isnull=True
    )
    return set(own.values_list("pool_id", flat=True))
