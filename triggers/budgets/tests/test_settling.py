"""What a run counts in its budget when it has ended, in each way in which a run can end."""

from decimal import Decimal

import pytest

from pipedai.sql import database_now, execute
from testing.world.budgets import add_budget, used
from testing.world.cases import cases
from testing.world.runs import Runs, allow
from triggers.budgets.spending import settle_reservations
from triggers.models import Budget, BudgetWindow, RunReservation
from triggers.runs.lifecycle import Refused


@pytest.fixture
def runs(runs: Runs) -> Runs:
    allow(runs.cast.worker.worker_id, 20)
    return runs


@pytest.fixture
def budget(runs: Runs) -> Budget:
    return add_budget(runs.cast, limit_usd="100", reserve_usd="2")


def test_the_real_cost_takes_the_place_of_the_reservation(runs: Runs, budget: Budget) -> None:
    runs.ended(costUsd="0.123456")
    assert used(budget) == ("0.123456", "0", 1)


def test_a_run_may_cost_more_than_was_reserved(runs: Runs, budget: Budget) -> None:
    runs.ended("failed", costUsd="2.5")
    assert used(budget) == ("2.5", "0", 1)


@cases("status", ["succeeded", "failed", "timed_out"], undone=True)
def test_a_run_whose_cost_nobody_tells_counts_as_reserved(runs, budget, status) -> None:
    runs.ended(status)
    assert used(budget) == ("2", "0", 1)


def test_a_run_that_never_started_has_cost_nothing(runs: Runs, budget: Budget) -> None:
    runs.complete(runs.claimed(), "failed")
    assert used(budget) == ("0", "0", 1)


def test_a_canceled_run_is_settled_when_its_worker_says_so(runs: Runs, budget: Budget) -> None:
    run_id = runs.running()
    runs.cancel(run_id)
    assert used(budget) == ("0", "2", 1)
    runs.complete(run_id, "canceled", costUsd="0.5")
    assert used(budget) == ("0.5", "0", 1)


def test_a_run_that_is_canceled_in_the_queue_was_never_counted(runs: Runs, budget: Budget) -> None:
    runs.cancel(runs.queue())
    assert not BudgetWindow.objects.exists()


@cases("end", [Runs.lost, Runs.overdue], undone=True)
def test_a_late_result_corrects_what_a_lost_run_has_kept(runs: Runs, budget: Budget, end) -> None:
    run_id = end(runs)
    assert used(budget) == ("2", "0", 1)
    runs.complete(run_id, costUsd="0.75")
    assert used(budget) == ("0.75", "0", 1)
    runs.complete(run_id, costUsd="0.75")
    assert used(budget) == ("0.75", "0", 1)


def test_a_late_result_that_is_refused_corrects_it_too(runs: Runs, budget: Budget) -> None:
    run_id = runs.lost()
    runs.claimed_retry_of(run_id)
    assert used(budget) == ("2", "2", 2)
    for cost in ("0.75", "9"):
        with pytest.raises(Refused):
            runs.complete(run_id, costUsd=cost)
        assert used(budget) == ("0.75", "2", 2)


def test_a_retry_reserves_anew(runs: Runs, budget: Budget) -> None:
    run_id = runs.ended("failed", faultClass="infra", costUsd="1.5")
    retry = runs.claimed_retry_of(run_id)
    assert used(budget) == ("1.5", "2", 2)
    runs.complete(retry, costUsd="0.5")
    assert used(budget) == ("2", "0", 2)


def test_many_lost_runs_are_settled_together(runs: Runs, budget: Budget) -> None:
    for _ in range(3):
        runs.running()
    runs.lost()
    assert used(budget) == ("8", "0", 4)


def test_a_run_is_settled_in_the_window_of_its_claim(runs: Runs) -> None:
    budget = add_budget(runs.cast)
    run_id = runs.running()
    runs.wait(minutes=2)
    runs.now = runs.now.replace(hour=23, minute=59)
    runs.heartbeat(run_id)
    runs.wait(minutes=2)
    runs.claimed()
    runs.complete(run_id, costUsd="0.5")
    first, second = BudgetWindow.objects.filter(budget=budget).order_by("starts_at")
    assert (first.spent_usd, first.reserved_usd, first.runs) == (Decimal("0.5"), 0, 1)
    assert (second.spent_usd, second.reserved_usd, second.runs) == (0, 1, 1)


def test_pruning_a_run_keeps_what_it_has_spent(runs: Runs, budget: Budget) -> None:
    run_id = runs.ended(costUsd="0.5")
    assert RunReservation.objects.count() == 1
    for table in ("delivery_attempt", "delivery", "run_text", "run_result"):
        column = "run_id" if table != "delivery_attempt" else "delivery_id"
        execute(f"DELETE FROM {table} WHERE {column} = %(id)s", {"id": run_id})
    execute("DELETE FROM run WHERE id = %(id)s", {"id": run_id})
    assert RunReservation.objects.count() == 0
    assert used(budget) == ("0.5", "0", 1)


def test_settling_again_keeps_the_cost_that_a_refused_late_result_told(runs, budget) -> None:
    run_id = runs.lost()
    runs.claimed_retry_of(run_id)
    with pytest.raises(Refused):
        runs.complete(run_id, costUsd="0.75")
    settle_reservations([run_id])
    assert used(budget) == ("0.75", "2", 2)


def test_room_for_a_waiting_run_with_a_large_cap_wakes_its_worker(runs: Runs, monkeypatch) -> None:
    runs.now = database_now()
    add_budget(runs.cast, limit_usd="10")
    going = [runs.running() for _ in range(6)]
    large = Runs.of(runs.cast, max_cost_usd=Decimal(5))
    large.now = runs.now
    held = large.queue()
    assert large.polled() == []
    woken: list = []
    monkeypatch.setattr("triggers.budgets.spending.wake_workers", woken.extend)
    runs.complete(going[0], costUsd="0")
    assert large.polled() == [held]
    assert woken == [runs.cast.worker.worker_id]
