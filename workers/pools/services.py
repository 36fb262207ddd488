"""Creates, changes and deletes pools, and puts workers into them (SPEC §16), each with its audit event."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import IntegrityError, transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, NotFound, or_not_found
from pipedai.api.renderers import counted
from pipedai.events import Actor
from pipedai.wakeups import wake_workers
from triggers.models import Trigger
from triggers.runs.lifecycle import reassign_resuming_runs
from workers.locks import hold_workers
from workers.models import Pool, PoolMember
from workers.pools.membership import join_pools, lock_resuming_triggers
from workspaces.locks import hold_pools
from workspaces.resources import Resource
from workspaces.tenant_columns import keeping_keys


class Pools(Resource[Pool]):
    noun = "pool"
    model = Pool
    # A trigger may be about to point at it, or a worker to join it.
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
    """Puts a worker into a pool, if it is not in it. Raises NotFound, CeilingReached, and the errors of `hold_role`."""
    with transaction.atomic():
        _hold_worker(pool, worker_id, actor)
        joined = or_not_found(
            join_pools(environment_id=pool.environment_id, worker_id=worker_id, pool_ids=[pool.id])
        )
        if joined:
            # The worker's waiting poll asks the database again, because runs of the pool may be due.
            wake_workers([worker_id])
            POOLS.emit("worker-added", pool, actor, {"workerId": str(worker_id)})


def remove_worker(*, pool: Pool, worker_id: UUID, actor: Actor) -> None:
    """Takes a worker out of a pool. It finishes the runs that it holds, and runs that wait for its sessions wait no
    longer. A repetition changes nothing. Raises NotFound, and the errors of `hold_role`.
    """
    with transaction.atomic():
        _hold_worker(pool, worker_id, actor)
        if not hold_pools(pool.environment_id, [pool.id]):
            raise NotFound
        if PoolMember.objects.filter(pool_id=pool.id, worker_id=worker_id).delete()[0]:
            lock_resuming_triggers([pool.id])
            reassign_resuming_runs(worker_id=worker_id, pool_id=pool.id)
            POOLS.emit("worker-removed", pool, actor, {"workerId": str(worker_id)})


def _hold_worker(pool: Pool, worker_id: UUID, actor: Actor) -> None:
    if worker_id not in hold_workers(pool.environment_id, [worker_id], actor):
        raise NotFound
