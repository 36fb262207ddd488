"""Workers of a pool that claim at the same moment, on real connections (SPEC §16)."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from pipedai.api.errors import ApiError, Conflict, NotFound
from testing.processes.racing import at_once
from testing.world.cast import TEST_ACTOR
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Run, Trigger
from workers.models import Pool, Worker
from workers.pools.services import add_worker, remove_worker
from workers.services import update_worker

WORKERS, RUNS = 50, 200


@pytest.fixture
def runs(committed_runs: Runs) -> Runs:
    return committed_runs


def pool_of(runs: Runs, count: int, **trigger: Any) -> tuple[UUID, list[UUID]]:
    """Gives the runs' trigger a pool of this many new workers, which may hold any number of runs."""
    first = Worker.objects.get(id=runs.cast.worker.worker_id)
    others = [runs.cast.register(f"pooled-{number}").worker_id for number in range(1, count)]
    workers = [first.id, *others]
    Worker.objects.filter(id__in=workers).update(max_concurrency=100)
    pool_id = add_pool(runs.cast, *workers)
    runs.call(*workers)
    Trigger.objects.filter(id=runs.trigger_id).update(
        **{"worker_id": None, "pool_id": pool_id, **trigger}
    )
    return pool_id, workers


def work_off(runs: Runs, worker_id: UUID) -> Callable[[], int]:
    """Returns a call that polls and claims as a worker does until a poll returns nothing. It tells how many runs it
    has claimed.
    """

    def work() -> int:
        claimed = 0
        while polled := runs.polled(worker_id):
            for run_id in polled:
                try:
                    runs.claim(run_id, worker_id=worker_id)
                    claimed += 1
                except (Conflict, NotFound):
                    continue
        return claimed

    return work


def held_by() -> Counter[UUID]:
    return Counter(Run.objects.filter(slot__isnull=False).values_list("worker_id", flat=True))


def test_each_run_is_claimed_once_and_none_is_left_while_a_place_is_free(runs: Runs) -> None:
    _, workers = pool_of(runs, WORKERS)
    with transaction.atomic():
        for _ in range(RUNS):
            runs.queue()
    claimed = at_once(*(work_off(runs, worker_id) for worker_id in workers))
    assert sum(answer for answer in claimed if not isinstance(answer, ApiError)) == RUNS
    assert Run.objects.filter(status="claimed").count() == RUNS
    assert sum(held_by().values()) == RUNS


def test_no_more_runs_are_held_than_the_trigger_allows(runs: Runs) -> None:
    _, workers = pool_of(runs, 12, max_concurrent_runs=7)
    for _ in range(30):
        runs.queue()
    answers = at_once(*(work_off(runs, worker_id) for worker_id in workers))
    assert sum(answer for answer in answers if not isinstance(answer, ApiError)) == 7
    places = Run.objects.filter(slot__isnull=False).values_list("place", flat=True)
    assert set(places) == set(range(1, 8))


def test_workers_that_join_and_leave_meanwhile_neither_lose_nor_double_a_run(runs: Runs) -> None:
    pool_id, workers = pool_of(runs, 8)
    pool = Pool.objects.get(id=pool_id)
    for _ in range(40):
        runs.queue()

    def come_and_go(worker_id: UUID) -> None:
        for _ in range(5):
            remove_worker(pool=pool, worker_id=worker_id, actor=TEST_ACTOR)
            add_worker(pool=pool, worker_id=worker_id, actor=TEST_ACTOR)

    restless = workers[:3]
    at_once(
        *(work_off(runs, worker_id) for worker_id in workers),
        *(partial(come_and_go, worker_id) for worker_id in restless),
    )
    for worker_id in workers:
        work_off(runs, worker_id)()
    assert Run.objects.filter(status="claimed").count() == 40


def test_a_preferred_worker_that_goes_leaves_no_run_behind(runs: Runs) -> None:
    _, workers = pool_of(runs, 4)
    preferred, *others = workers
    Trigger.objects.filter(id=runs.trigger_id).update(worker_id=preferred)
    for _ in range(20):
        runs.queue()
    disable = partial(
        update_worker,
        worker=Worker.objects.get(id=preferred),
        values={"disabled": True},
        actor=TEST_ACTOR,
    )
    at_once(
        work_off(runs, preferred), disable, *(work_off(runs, worker_id) for worker_id in others)
    )
    work_off(runs, others[0])()
    assert Run.objects.filter(status="claimed").count() == 20
