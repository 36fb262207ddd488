"""Workers of a pool that claim at the same moment, on real connections."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from pipedai.api.errors import ApiError, Conflict, NotFound
from pipedai.api.renderers import iso_time
from testing.processes.racing import Started, at_once
from testing.world.cast import TEST_ACTOR
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Run, Trigger
from workers.models import Pool, Worker
from workers.pools.services import add_worker, remove_worker
from workers.services import deregister_worker, update_worker

WORKERS, RUNS = 6, 18


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
    _, workers = pool_of(runs, 8, max_concurrent_runs=5)
    for _ in range(16):
        runs.queue()
    answers = at_once(*(work_off(runs, worker_id) for worker_id in workers))
    assert sum(answer for answer in answers if not isinstance(answer, ApiError)) == 5
    places = Run.objects.filter(slot__isnull=False).values_list("trigger_slot", flat=True)
    assert set(places) == set(range(1, 6))


def test_workers_that_join_and_leave_meanwhile_neither_lose_nor_double_a_run(runs: Runs) -> None:
    pool_id, workers = pool_of(runs, 6)
    pool = Pool.objects.get(id=pool_id)
    for _ in range(20):
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
    assert Run.objects.filter(status="claimed").count() == 20


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


def resuming(runs: Runs) -> tuple[UUID, UUID]:
    """Lets the cast's worker hold a run whose session it has told, of a trigger that resumes in a pool of two workers.
    Returns the run and the pool.
    """
    pool_id, (first, _) = pool_of(runs, 2, retry_mode="resume")
    run_id = runs.running(worker_id=first)
    runs.heartbeat(run_id, (0, 0, 0), session_id="s-1", worker_id=first)
    return run_id, pool_id


@pytest.mark.parametrize("leave", ["left the pool", "was deregistered"])
def test_a_worker_that_goes_while_its_run_ends_has_no_retry_waiting_for_it(
    runs: Runs, leave: str
) -> None:
    run_id, pool_id = resuming(runs)
    first = runs.cast.worker.worker_id
    (heir,) = Worker.objects.exclude(id=first).values_list("id", flat=True)
    with transaction.atomic():
        runs.complete(run_id, "failed", faultClass="infra")
        if leave == "left the pool":
            pool = Pool.objects.get(id=pool_id)
            going = Started(partial(remove_worker, pool=pool, worker_id=first, actor=TEST_ACTOR))
        else:
            worker = Worker.objects.get(id=first)
            going = Started(
                partial(deregister_worker, worker=worker, reassign_to=heir, actor=TEST_ACTOR)
            )
        going.wait_until_blocked()
    assert not isinstance(going.answer(), ApiError)
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert (retry["worker_id"], retry["resume_until"]) == (None, None)


def test_a_limit_locks_the_runs_that_wait_for_its_worker_in_one_order(runs: Runs) -> None:
    first = runs.cast.worker.worker_id
    run_id, _ = resuming(runs)
    Trigger.objects.filter(id=runs.trigger_id).update(worker_id=first)
    runs.complete(run_id, "failed", faultClass="infra", worker_id=first)
    retry = runs.retry_of(run_id)
    assert retry is not None
    waiting = runs.queue()
    assert runs.stored(waiting)["pool_from"] > runs.now
    limited = runs.running(worker_id=first, trigger_id=runs.cast.add_trigger())
    report = {
        "faultClass": "infra",
        "usageLimit": {"resetsAt": iso_time(runs.now + timedelta(hours=5))},
    }
    with transaction.atomic():
        # A reassignment locks the runs in the order of their ids.
        Run.objects.select_for_update(no_key=True).get(id=retry["id"])
        ending = Started(partial(runs.complete, limited, "failed", worker_id=first, **report))
        ending.wait_until_blocked()
        Run.objects.select_for_update(no_key=True, nowait=True).get(id=waiting)
    assert not isinstance(ending.answer(), ApiError)
