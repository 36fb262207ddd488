"""Budgets and runs that any worker of a pool may take: the worker that claims the run decides."""

from dataclasses import dataclass
from uuid import UUID

import pytest
from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from testing.world.budgets import add_budget
from testing.world.cast import Cast
from testing.world.pools import add_pool
from testing.world.runs import Runs, allow
from triggers.models import BudgetWindow, Trigger
from triggers.runs.lifecycle import Refused
from triggers.runs.routing import reassign_queued_runs
from workers.models import Worker


@dataclass
class Pooled:
    """A pool of two workers: a subscription pays for `covered`, and `billed` has an API key."""

    runs: Runs
    pool_id: UUID
    covered: UUID
    billed: UUID


@pytest.fixture
def pooled(cast: Cast) -> Pooled:
    covered, billed = (cast.register(name).worker_id for name in ("covered", "billed"))
    Worker.objects.filter(id=billed).update(auth_mode="api_key")
    for worker_id in (covered, billed):
        allow(worker_id, 20)
    pool_id = add_pool(cast, covered, billed)
    return Pooled(Runs.of(cast, worker_id=None, pool_id=pool_id), pool_id, covered, billed)


def use_up(pooled: Pooled, **values) -> None:
    """Makes a budget that does not count notional costs, and lets the billed worker take all of it."""
    add_budget(pooled.runs.cast, limit_usd="1", count_notional=False, **values)
    pooled.runs.claimed(worker_id=pooled.billed)


def test_a_run_goes_to_the_worker_whose_costs_do_not_count(pooled: Pooled) -> None:
    use_up(pooled)
    run_id = pooled.runs.queue()
    assert pooled.runs.polled(pooled.billed) == []
    with pytest.raises(Refused) as refusal:
        pooled.runs.claim(run_id, worker_id=pooled.billed)
    assert refusal.value.code == ErrorCode.BUDGET_EXHAUSTED
    assert pooled.runs.polled(pooled.covered) == [run_id]
    pooled.runs.claim(run_id, worker_id=pooled.covered)
    window = BudgetWindow.objects.get()
    assert (window.reserved_usd, window.notional_reserved_usd) == (2, 1)


def test_a_request_is_refused_only_if_no_worker_could_take_the_run(pooled: Pooled) -> None:
    use_up(pooled, when_reached="reject")
    pooled.runs.queue()
    Worker.objects.update(auth_mode="api_key")
    with pytest.raises(Conflict) as refusal:
        pooled.runs.queue()
    assert refusal.value.code == ErrorCode.BUDGET_EXHAUSTED


def test_a_preferred_worker_without_room_leaves_the_request_to_its_pool(pooled: Pooled) -> None:
    Trigger.objects.filter(id=pooled.runs.trigger_id).update(worker_id=pooled.billed)
    use_up(pooled, when_reached="reject")
    pooled.runs.queue()


def test_a_held_run_whose_trigger_moves_to_a_pool_goes_to_a_worker_with_room(pooled) -> None:
    runs = Runs.of(pooled.runs.cast, worker_id=pooled.billed)
    use_up(pooled)
    run_id = runs.queue()
    assert runs.polled(pooled.billed) == []
    with transaction.atomic():
        rows = Trigger.objects.filter(id=runs.trigger_id)
        rows.update(worker_id=None, pool_id=pooled.pool_id)
        reassign_queued_runs(trigger_id=runs.trigger_id, now=runs.now)
    assert runs.polled(pooled.covered) == [run_id]


def test_a_run_with_a_place_reserves_too_and_keeps_none_if_a_budget_refuses_it(pooled) -> None:
    Trigger.objects.filter(id=pooled.runs.trigger_id).update(max_concurrent_runs=3)
    use_up(pooled)
    run_id = pooled.runs.queue()
    with pytest.raises(Refused):
        pooled.runs.claim(run_id, worker_id=pooled.billed)
    assert pooled.runs.stored(run_id)["trigger_slot"] is None
    assert BudgetWindow.objects.get().reserved_usd == 1
