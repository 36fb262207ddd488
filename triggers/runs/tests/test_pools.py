"""Any worker of a pool may take a run, and each run is taken once."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from pipedai.api.errors import Conflict, NotFound
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.pools import add_pool
from testing.world.runs import NOON, Runs
from triggers.models import Trigger
from triggers.services import TRIGGERS
from workers.models import Worker
from workers.services import deregister_worker, update_worker


@dataclass
class Pooled:
    """Runs of a trigger with a pool of two workers, `one` and `two`, both of which are online at the runs' `now`."""

    runs: Runs
    pool_id: UUID
    one: UUID
    two: UUID

    def set(self, **values: Any) -> None:
        TRIGGERS.update(self.runs.trigger_id, values=values, actor=TEST_ACTOR)

    def worker(self, worker_id: UUID) -> Worker:
        return Worker.objects.get(id=worker_id)


@pytest.fixture
def pooled(cast: Cast) -> Pooled:
    one = cast.worker.worker_id
    two = cast.register("host-2").worker_id
    pool_id = add_pool(cast, one, two)
    runs = Runs.of(cast, worker_id=None, pool_id=pool_id)
    runs.call(one, two)
    return Pooled(runs, pool_id, one, two)


@pytest.fixture
def preferring(pooled: Pooled) -> Pooled:
    """A trigger whose worker `one` comes first, and the pool a minute later."""
    pooled.set(worker_id=pooled.one)
    return pooled


def test_every_worker_of_the_pool_gets_the_run_until_one_claims_it(pooled: Pooled) -> None:
    runs = pooled.runs
    run_id = runs.queue()
    assert runs.stored(run_id)["worker_id"] is None
    assert runs.polled(pooled.one) == runs.polled(pooled.two) == [run_id]
    assert runs.claim(run_id, worker_id=pooled.two)["worker_id"] == pooled.two
    assert runs.polled(pooled.one) == runs.polled(pooled.two) == []


def test_who_loses_the_race_is_told_so_and_a_stranger_nothing(pooled: Pooled) -> None:
    runs = pooled.runs
    run_id = runs.claimed(worker_id=pooled.one)
    with pytest.raises(Conflict) as lost:
        runs.claim(run_id, worker_id=pooled.two)
    assert lost.value.code == "claimed_by_another"
    outsider = runs.cast.register("outsider").worker_id
    with pytest.raises(NotFound):
        runs.claim(run_id, worker_id=outsider)
    with pytest.raises(NotFound):
        runs.claim(runs.queue(), worker_id=outsider)


def test_only_the_worker_that_claimed_a_run_may_go_on_with_it(pooled: Pooled) -> None:
    run_id = pooled.runs.claimed(worker_id=pooled.one)
    with pytest.raises(NotFound):
        pooled.runs.start(run_id, worker_id=pooled.two)


def test_own_runs_and_those_of_all_pools_come_in_the_order_in_which_they_came_due(
    pooled: Pooled,
) -> None:
    runs, cast = pooled.runs, pooled.runs.cast
    Worker.objects.filter(id=pooled.one).update(max_concurrency=9)
    other_pool = add_pool(cast, pooled.one)
    own = cast.add_trigger()
    other = cast.add_trigger(worker_id=None, pool_id=other_pool)
    expected = []
    for trigger_id in (other, runs.trigger_id, own, other, runs.trigger_id, own):
        expected.append(runs.queue(trigger_id=trigger_id))
        runs.wait(seconds=1)
    assert runs.polled(pooled.one) == expected


def test_the_preferred_worker_has_the_run_for_itself_at_first(preferring: Pooled) -> None:
    runs = preferring.runs
    run_id = runs.queue()
    assert runs.stored(run_id)["worker_id"] == preferring.one
    assert runs.polled(preferring.one) == [run_id]
    assert runs.polled(preferring.two) == []
    with pytest.raises(Conflict) as too_soon:
        runs.claim(run_id, worker_id=preferring.two)
    assert too_soon.value.code == "first_worker"
    runs.wait(seconds=60)
    assert runs.polled(preferring.one) == runs.polled(preferring.two) == [run_id]
    assert runs.claim(run_id, worker_id=preferring.two)["worker_id"] == preferring.two


def _disable(pooled: Pooled, worker_id: UUID) -> None:
    update_worker(worker=pooled.worker(worker_id), values={"disabled": True}, actor=TEST_ACTOR)


def _limit(pooled: Pooled, worker_id: UUID) -> None:
    Worker.objects.filter(id=worker_id).update(limited_until=NOON + timedelta(hours=1))


def _silence(pooled: Pooled, worker_id: UUID) -> None:
    Worker.objects.filter(id=worker_id).update(last_seen_at=NOON - timedelta(minutes=4))


@cases("fail", [_disable, _limit, _silence], undone=True)
def test_a_run_does_not_wait_for_a_preferred_worker_that_can_not_take_it(
    preferring: Pooled, fail: Any
) -> None:
    fail(preferring, preferring.one)
    run_id = preferring.runs.queue()
    assert preferring.runs.polled(preferring.two) == [run_id]


def test_nor_if_nobody_else_is_online(preferring: Pooled) -> None:
    _silence(preferring, preferring.two)
    run_id = preferring.runs.queue()
    preferring.runs.call(preferring.two)
    assert preferring.runs.polled(preferring.two) == [run_id]


def test_disabling_the_preferred_worker_opens_its_queued_runs_to_the_pool(
    preferring: Pooled,
) -> None:
    run_id = preferring.runs.queue()
    _disable(preferring, preferring.one)
    assert preferring.runs.polled(preferring.two) == [run_id]


def test_no_seconds_of_preference_let_all_take_it_at_once(preferring: Pooled) -> None:
    preferring.set(prefer_seconds=0)
    run_id = preferring.runs.queue()
    assert preferring.runs.polled(preferring.two) == [run_id]


def test_a_preferred_worker_need_not_be_in_the_pool(pooled: Pooled) -> None:
    outsider = pooled.runs.cast.register("outsider").worker_id
    pooled.runs.call(outsider)
    pooled.set(worker_id=outsider)
    run_id = pooled.runs.queue()
    assert pooled.runs.polled(outsider) == [run_id]
    assert pooled.runs.polled(pooled.one) == []


@cases("end", ["lost", "failed"], undone=True)
def test_a_retry_passes_over_the_worker_that_failed(pooled: Pooled, end: str) -> None:
    runs = pooled.runs
    run_id = runs.running(worker_id=pooled.one)
    if end == "lost":
        runs.now = runs.stored(run_id)["lease_expires_at"]
        runs.call(pooled.two)
        runs.expire()
    else:
        runs.complete(run_id, "failed", faultClass="infra", worker_id=pooled.one)
    retry = runs.retry_of(run_id)
    assert retry is not None
    assert retry["worker_id"] is None
    runs.now = retry["available_at"]
    assert runs.polled(pooled.one) == []
    assert runs.polled(pooled.two) == [retry["id"]]
    with pytest.raises(Conflict) as too_soon:
        runs.claim(retry["id"], worker_id=pooled.one)
    assert too_soon.value.code == "first_worker"
    runs.wait(seconds=60)
    assert runs.polled(pooled.one) == [retry["id"]]


def test_it_does_not_if_no_other_worker_is_online(pooled: Pooled) -> None:
    runs = pooled.runs
    _silence(pooled, pooled.two)
    run_id = runs.running(worker_id=pooled.one)
    runs.complete(run_id, "failed", faultClass="infra", worker_id=pooled.one)
    retry = runs.retry_of(run_id)
    assert retry is not None
    runs.now = retry["available_at"]
    assert runs.polled(pooled.one) == [retry["id"]]


def test_a_retry_of_a_preferred_worker_goes_to_the_others_at_once(preferring: Pooled) -> None:
    runs = preferring.runs
    run_id = runs.running(worker_id=preferring.one)
    runs.complete(run_id, "failed", faultClass="infra", worker_id=preferring.one)
    retry = runs.retry_of(run_id)
    assert retry is not None
    runs.now = retry["available_at"]
    assert runs.polled(preferring.two) == [retry["id"]]
    assert runs.polled(preferring.one) == []


def test_queued_runs_move_with_their_trigger(pooled: Pooled) -> None:
    runs = pooled.runs
    outsider = runs.cast.register("outsider").worker_id
    run_id = runs.queue()
    pooled.set(pool_id=None, worker_id=outsider)
    assert runs.polled(outsider) == [run_id]
    assert runs.polled(pooled.one) == []
    pooled.set(pool_id=pooled.pool_id, worker_id=None)
    assert runs.polled(outsider) == []
    assert runs.polled(pooled.one) == [run_id]


def test_a_trigger_without_worker_and_pool_makes_no_runs(pooled: Pooled) -> None:
    Trigger.objects.filter(id=pooled.runs.trigger_id).update(pool_id=None)
    with pytest.raises(Conflict) as refused:
        pooled.runs.queue()
    assert refused.value.code == "trigger_without_worker"


def test_a_worker_that_is_deregistered_leaves_its_queued_runs_to_the_pool(pooled: Pooled) -> None:
    pooled.set(worker_id=pooled.two)
    run_id = pooled.runs.queue()
    Trigger.objects.filter(id=pooled.runs.trigger_id).update(worker_id=None)
    deregister_worker(worker=pooled.worker(pooled.two), reassign_to=None, actor=TEST_ACTOR)
    assert pooled.runs.polled(pooled.one) == [run_id]
