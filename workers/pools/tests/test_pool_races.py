"""Pools that are deleted and joined at the same moment, on real connections."""

from functools import partial

import pytest
from django.db import transaction

from pipedai.api.errors import CeilingReached, Conflict, Invalid, NotFound
from pipedai.events import SYSTEM
from testing.processes.racing import ROUNDS, Started, accepted, at_once
from testing.world.cast import TEST_ACTOR, register
from testing.world.pools import add_pool
from triggers.models import Trigger
from triggers.services import TRIGGERS
from workers.models import Pool, PoolMember, Worker
from workers.pools.services import POOLS, add_worker, remove_worker
from workers.services import deregister_worker


def pool_of(cast, pool_id):
    return Pool(id=pool_id, environment_id=cast.environment.id)


@pytest.mark.parametrize("_", ROUNDS)
def test_a_trigger_never_points_at_a_deleted_pool(committed_cast, _):
    cast = committed_cast
    pool_id = add_pool(cast)
    deleted, moved = at_once(
        partial(POOLS.delete, pool_id, actor=SYSTEM),
        partial(TRIGGERS.update, cast.trigger_id, values={"pool_id": pool_id}, actor=SYSTEM),
    )
    points = Trigger.objects.get(id=cast.trigger_id).pool_id == pool_id
    if points:
        assert isinstance(deleted, Conflict)
    else:
        assert isinstance(moved, Invalid)
    assert (Pool.objects.get(id=pool_id).deleted_at is None) == points


@pytest.mark.parametrize("_", ROUNDS)
def test_a_worker_is_never_in_a_deleted_pool_and_never_in_too_many(committed_cast, ceilings, _):
    cast = committed_cast
    ceilings["poolsOfWorker"] = 2
    pools = [pool_of(cast, add_pool(cast)) for _ in range(4)]
    worker_id = cast.worker.worker_id
    answers = at_once(
        *(partial(add_worker, pool=pool, worker_id=worker_id, actor=SYSTEM) for pool in pools),
        partial(POOLS.delete, pools[0].id, actor=SYSTEM),
    )
    refused = [answer for answer in answers if answer is not None]
    assert {type(each) for each in refused} <= {CeilingReached, NotFound}
    assert PoolMember.objects.filter(pool__deleted_at__isnull=True).count() <= 2
    assert not PoolMember.objects.filter(pool__deleted_at__isnull=False).exists()


def test_of_two_pools_with_one_name_one_is_made(committed_cast):
    cast = committed_cast
    values = {"name": "Machines", "description": ""}
    create = partial(
        POOLS.create, environment_id=cast.environment.id, values=values, actor=TEST_ACTOR
    )
    assert sorted(isinstance(answer, Conflict) for answer in at_once(create, create)) == [
        False,
        True,
    ]


def test_whoever_joins_and_leaves_pools_that_are_deleted_waits_for_nobody_forever(committed_cast):
    cast = committed_cast
    workers = [cast.register(f"host-{n}").worker_id for n in (2, 3)]
    pools = [pool_of(cast, add_pool(cast, *workers)) for _ in range(2)]
    accepted(
        at_once(
            *(
                partial(
                    deregister_worker,
                    worker=Worker(id=worker_id, environment_id=cast.environment.id),
                    reassign_to=None,
                    actor=SYSTEM,
                )
                for worker_id in workers
            ),
            *(partial(POOLS.delete, pool.id, actor=SYSTEM) for pool in pools),
        )
    )
    assert not PoolMember.objects.exists()


def test_a_worker_that_registers_while_its_pool_is_deleted_skips_it(committed_cast):
    cast = committed_cast
    pool = pool_of(cast, add_pool(cast))
    token = cast.mint("wrk", pool_ids=[pool.id])
    with transaction.atomic():
        POOLS.delete(pool.id, actor=SYSTEM)
        joining = Started(partial(register, token, "host-2"))
        joining.wait_until_blocked()
    joining.answer()
    assert Worker.objects.filter(hostname="host-2").exists()
    assert not PoolMember.objects.exists()


def test_leaving_while_joining_leaves_one_or_none(committed_cast):
    cast = committed_cast
    pool = pool_of(cast, add_pool(cast))
    call = {"pool": pool, "worker_id": cast.worker.worker_id, "actor": SYSTEM}
    accepted(at_once(partial(add_worker, **call), partial(remove_worker, **call)))
    assert PoolMember.objects.count() <= 1
