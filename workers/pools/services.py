"""Creates, changes and deletes pools, and puts workers into them (SPEC §16), each with its audit event."""

from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, NotFound, or_not_found
from pipedai.api.renderers import counted, set_changed
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.wakeups import wake_workers
from triggers.models import Trigger
from triggers.runs.lifecycle import reassign_resuming_runs
from workers.locks import hold_workers
from workers.models import Pool, PoolMember
from workers.pools.membership import join_pools, lock_resuming_triggers
from workspaces.ceilings import check_ceiling
from workspaces.files.columns import keeping_keys
from workspaces.locks import (
    hold_environment,
    hold_pools,
    hold_role,
    lock_environment,
)
from workspaces.roles import Role

_NAME_TAKEN = "The environment has a pool of this name already."


def create_pool(
    *, environment_id: UUID, values: dict[str, Any], actor: Actor, id_: UUID | None = None
) -> UUID:
    """Creates a pool without workers and returns its id, which is `id_` if that is given. Raises NotFound, Conflict for
    a taken name, CeilingReached, and the errors of `hold_role`.
    """
    pool = Pool(id=id_ or new_id(), environment_id=environment_id, **values)
    try:
        with keeping_keys():
            lock_environment(environment_id)
            hold_role(actor, environment_id, Role.ADMIN)
            live = Pool.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
            check_ceiling("pools", "pools", environment_id=environment_id, rows=live)
            pool.save(force_insert=True)
            emit(_event("pool.created", pool, actor, {"name": pool.name}))
    except IntegrityError:
        raise Conflict(_NAME_TAKEN, code=ErrorCode.NAME_TAKEN) from None
    return pool.id


def update_pool(*, pool: Pool, values: dict[str, Any], actor: Actor) -> None:
    """Changes what a PoolBody names. Raises NotFound, Conflict for a taken name, and the errors of `hold_role`."""
    try:
        with keeping_keys():
            locked = _held(pool, actor, no_key=True)
            changes = set_changed(locked, values)
            if not changes:
                return
            locked.save(force_update=True)
            emit(_event("pool.updated", locked, actor, changes))
    except IntegrityError:
        raise Conflict(_NAME_TAKEN, code=ErrorCode.NAME_TAKEN) from None


def delete_pool(*, pool: Pool, actor: Actor) -> None:
    """Marks a pool as deleted, which frees its name. Raises NotFound, Conflict while triggers point at it, and the
    errors of `hold_role`.
    """
    with transaction.atomic():
        # This lock waits for transactions that make a trigger point at the pool, or let a worker join it.
        locked = _held(pool, actor, no_key=False)
        triggers = Trigger.objects.filter(pool_id=locked.id, deleted_at__isnull=True).count()
        if triggers:
            raise Conflict(
                f"The pool still has {counted(triggers, 'trigger')}.", code=ErrorCode.HAS_CHILDREN
            )
        PoolMember.objects.filter(pool_id=locked.id).delete()
        Pool.objects.filter(id=locked.id).update(deleted_at=Now())
        emit(_event("pool.deleted", locked, actor, {"name": locked.name}))


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
            emit(_event("pool.worker-added", pool, actor, {"workerId": str(worker_id)}))


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
            emit(_event("pool.worker-removed", pool, actor, {"workerId": str(worker_id)}))


def _held(pool: Pool, actor: Actor, *, no_key: bool) -> Pool:
    """Locks environment, role and pool. With `no_key` false, it waits also for `hold_pools`. Raises NotFound."""
    hold_environment(pool.environment_id)
    hold_role(actor, pool.environment_id, Role.ADMIN)
    rows = Pool.objects.select_for_update(no_key=no_key)
    return or_not_found(rows.filter(id=pool.id, deleted_at__isnull=True).first())


def _hold_worker(pool: Pool, worker_id: UUID, actor: Actor) -> None:
    if worker_id not in hold_workers(pool.environment_id, [worker_id], actor):
        raise NotFound


def _event(action: str, pool: Pool, actor: Actor, metadata: dict[str, Any]) -> Event:
    return Event(action, actor, pool.environment_id, "pool", pool.id, metadata)
