"""Lets workers join pools and leave them."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db.models import Q

from pipedai.api.errors import CeilingReached
from pipedai.sql import fetch_all
from triggers.models import Trigger
from triggers.states import RetryMode
from workers.models import PoolMember
from workspaces.ceilings import held_and_most
from workspaces.locks import hold_pools
from workspaces.models import Workspace

_JOIN = """
INSERT INTO pool_member (environment_id, worker_id, pool_id)
SELECT %(environment_id)s, %(worker_id)s, pool_id FROM unnest(%(pool_ids)s::uuid[]) pool_id
ON CONFLICT DO NOTHING
RETURNING pool_id
"""


def join_pools(
    *, environment_id: UUID, worker_id: UUID, pool_ids: Iterable[UUID]
) -> list[UUID] | None:
    """Makes the worker a member of those pools that exist, and returns the ones it was not in; None if none exists. The
    caller has locked the environment and the worker. Raises CeilingReached.
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
                "poolsOfWorker", f"The worker may be in {limit} pools, and would be in more."
            )
    return joined


def leave_all_pools(*, environment_id: UUID, worker_id: UUID) -> list[UUID]:
    """Ends all memberships of a worker, and returns the pools. The caller has locked the environment and the worker.
    The pools are locked first, so that it holds nothing while it waits for the deletion of one.
    """
    memberships = PoolMember.objects.filter(worker_id=worker_id)
    left = hold_pools(environment_id, memberships.values_list("pool_id", flat=True))
    memberships.delete()
    return left


def lock_resuming_triggers(
    pool_ids: Sequence[UUID], *, worker_id: UUID | None = None
) -> list[UUID]:
    """Locks the triggers that resume in the pools, and those of `worker_id`, whose ids it returns. Call it after a
    worker has left: it waits for ends of runs whose retry may want a session of the worker.
    """
    of_pools = Q(pool_id__in=pool_ids, retry_mode=RetryMode.RESUME)
    triggers = Trigger.objects.filter(
        of_pools | Q(worker_id__isnull=False, worker_id=worker_id), deleted_at__isnull=True
    )
    locked = triggers.select_for_update(no_key=True).order_by("id")
    return [id_ for id_, owner in locked.values_list("id", "worker_id") if owner == worker_id]


def pools_of_host(key_id: UUID) -> set[UUID]:
    """Returns the pools of all workers that a host brought in. Its further workers may join only these, because pools
    get secrets of triggers, and an admin decides which machines are in them.
    """
    own = PoolMember.objects.filter(
        worker__host_key_id=key_id, worker__deleted_at__isnull=True, pool__deleted_at__isnull=True
    )
    return set(own.values_list("pool_id", flat=True))
