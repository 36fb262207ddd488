"""Which runs budgets let workers claim, and what a claim reserves."""

from datetime import timedelta
from decimal import Decimal

import pytest

from pipedai.api.error_codes import ErrorCode
from pipedai.events import Actor
from pipedai.sql import database_now, execute
from testing.probes.plans import explained
from testing.probes.statement_count import counted
from testing.world.budgets import add_budget, used
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.copied_rows import copy_row
from testing.world.runs import USER, Runs, allow
from triggers.budgets.services import BUDGETS
from triggers.models import BudgetWindow, Run, RunReservation, Trigger
from triggers.runs.conditions import limits_of
from triggers.runs.handout import hand_out_runs, outlook
from triggers.runs.lifecycle import Refused
from workers.models import Worker


@pytest.fixture
def runs(runs: Runs) -> Runs:
    allow(runs.cast.worker.worker_id, 20)
    return runs


def cap(runs: Runs, amount: str | None) -> None:
    """Sets the trigger's `maxCostUsd`."""
    Trigger.objects.filter(id=runs.trigger_id).update(max_cost_usd=amount and Decimal(amount))


def polled(runs: Runs) -> list:
    limits = limits_of(max_concurrency=20, disabled=False, limited=False, approved=True)
    found = hand_out_runs(worker_id=runs.cast.worker.worker_id, **limits, actor=USER, now=runs.now)
    return [run.row["id"] for run in found]


def refused(runs: Runs, run_id=None) -> bool:
    """Returns whether the claim of a run, of a new one unless one is given, is refused because of a budget."""
    run_id = run_id or runs.queue()
    try:
        runs.claim(run_id)
    except Refused as error:
        refusal = error
    else:
        return False
    assert refusal.code == ErrorCode.BUDGET_EXHAUSTED
    assert refusal.extra["status"] == Run.objects.get(id=run_id).status == "queued"
    return True


def test_a_claim_reserves_and_the_run_without_room_stays_queued(runs: Runs) -> None:
    budget = add_budget(runs.cast, limit_usd="2.5")
    runs.claimed()
    runs.claimed()
    assert used(budget) == ("0", "2", 2)
    third = runs.queue()
    assert polled(runs) == []
    assert refused(runs, third)
    assert used(budget) == ("0", "2", 2)
    assert RunReservation.objects.count() == 2


def test_a_limit_can_be_used_up_to_the_last_digit(runs: Runs) -> None:
    cap(runs, "0.000001")
    budget = add_budget(runs.cast, limit_usd="0.000003")
    for _ in range(3):
        runs.claimed()
    assert refused(runs)
    assert used(budget) == ("0", "0.000003", 3)


def test_the_cap_of_the_trigger_is_reserved_or_else_the_budget_s_own_amount(runs: Runs) -> None:
    budget = add_budget(runs.cast, reserve_usd="0.4")
    runs.claimed()
    cap(runs, "7.25")
    runs.claimed()
    assert used(budget) == ("0", "7.65", 2)


@cases("limit", [{"limit_usd": "0"}, {"limit_runs": 0}], undone=True)
def test_zero_is_zero(runs: Runs, limit) -> None:
    add_budget(runs.cast, reserve_usd="0", **limit)
    assert refused(runs)


def test_without_limits_a_budget_only_counts(runs: Runs) -> None:
    budget = add_budget(runs.cast)
    runs.claimed()
    assert used(budget) == ("0", "1", 1)


def test_the_number_of_runs_is_limited_too(runs: Runs) -> None:
    add_budget(runs.cast, limit_runs=2)
    runs.ended(costUsd=0)
    runs.ended(costUsd=0)
    assert refused(runs)


def test_a_claim_reserves_in_all_budgets_or_in_none(runs: Runs) -> None:
    wide = add_budget(runs.cast, limit_usd="10")
    narrow = add_budget(runs.cast, limit_usd="1", trigger_id=runs.trigger_id)
    runs.claimed()
    assert refused(runs)
    assert (used(wide), used(narrow)) == (("0", "1", 1), ("0", "1", 1))
    other = Runs.of(runs.cast)
    other.claimed()
    assert (used(wide), used(narrow)) == (("0", "2", 2), ("0", "1", 1))


def test_a_budget_of_another_environment_holds_nothing_back(runs: Runs) -> None:
    add_budget(runs.cast, limit_usd="0", trigger_id=runs.cast.trigger_id)
    assert not refused(runs)
    assert not BudgetWindow.objects.exists()


def test_one_that_only_notifies_lets_all_runs_go(runs: Runs) -> None:
    budget = add_budget(runs.cast, limit_usd="0", when_reached="notify")
    runs.claimed()
    assert used(budget) == ("0", "1", 1)


@cases(("counts", "is_refused"), [(True, True), (False, False)], undone=True)
def test_what_a_subscription_pays_counts_if_the_budget_says_so(runs, counts, is_refused) -> None:
    budget = add_budget(runs.cast, limit_usd="1", count_notional=counts)
    runs.ended(costUsd="1")
    assert refused(runs) == is_refused
    window = BudgetWindow.objects.get(budget=budget)
    assert window.notional_spent_usd == 1
    Worker.objects.update(auth_mode="api_key")
    assert refused(runs) == is_refused


def test_limit_runs_counts_the_runs_of_subscriptions_too(runs: Runs) -> None:
    add_budget(runs.cast, limit_runs=1, count_notional=False)
    runs.claimed()
    assert refused(runs)


def test_the_same_claim_again_reserves_once(runs: Runs) -> None:
    budget = add_budget(runs.cast, limit_usd="1")
    run_id = runs.claimed()
    runs.claim(run_id)
    assert used(budget) == ("0", "1", 1)


def test_held_runs_go_out_when_the_next_window_begins(runs: Runs) -> None:
    budget = add_budget(runs.cast, limit_usd="1", timezone="Europe/Berlin")
    runs.claimed()
    held = runs.queue()
    assert polled(runs) == []
    worker_id = runs.cast.worker.worker_id
    # Noon in UTC is 14:00 in Berlin.
    assert outlook(worker_id=worker_id, capacity=1, now=runs.now)[0] == timedelta(hours=10)
    runs.wait(hours=10)
    assert polled(runs) == [held]
    runs.claim(held)
    assert BudgetWindow.objects.filter(budget=budget).count() == 2


def test_a_limit_below_what_is_spent_holds_new_runs_back_alone(runs: Runs) -> None:
    budget = add_budget(runs.cast, limit_usd="5")
    going = runs.running()
    BUDGETS.update(budget.id, values={"limit_usd": Decimal("0.5")}, actor=_owner(runs))
    assert refused(runs)
    runs.complete(going, costUsd="3")
    assert used(budget) == ("3", "0", 1)
    answer = runs.cast.client(runs.cast.owner).get(f"/api/v1/budgets/{budget.id}").json()
    assert answer["runs"] == 0  # The window of the tests' clock is not the present one.


def test_deleting_a_budget_frees_held_runs_and_its_reservations_are_settled(runs: Runs) -> None:
    budget = add_budget(runs.cast, limit_usd="1")
    going, held = runs.running(), runs.queue()
    assert refused(runs, held)
    BUDGETS.delete(budget.id, actor=_owner(runs))
    assert not refused(runs, held)
    runs.complete(going, costUsd="0.25")
    assert used(budget) == ("0.25", "0", 1)


@cases("change", [{"timezone": "Asia/Tokyo"}, {"period": "month"}], undone=True)
def test_another_period_begins_a_count_at_zero(runs: Runs, change) -> None:
    budget = add_budget(runs.cast, limit_usd="1")
    going = runs.running()
    assert refused(runs)
    BUDGETS.update(budget.id, values=change, actor=_owner(runs))
    assert not refused(runs)
    runs.complete(going, costUsd="0.25")
    first, second = BudgetWindow.objects.filter(budget=budget).order_by("generation")
    assert (first.spent_usd, first.reserved_usd) == (Decimal("0.25"), 0)
    assert (second.spent_usd, second.reserved_usd) == (0, 1)


def test_a_trigger_that_moves_to_another_worker_stays_in_its_budget(runs: Runs) -> None:
    budget = add_budget(runs.cast, trigger_id=runs.trigger_id)
    other = runs.cast.register("another")
    Trigger.objects.filter(id=runs.trigger_id).update(worker_id=other.worker_id)
    runs.claimed(worker_id=other.worker_id)
    assert used(budget) == ("0", "1", 1)


def test_runs_without_budgets_cost_no_statement_and_others_two(cast: Cast) -> None:
    runs = Runs.of(cast)
    allow(cast.worker.worker_id, 20)

    def statements(verb, run_id) -> int:
        with counted() as made:
            verb(run_id)
        return len(made)

    runs.ended()
    run_id = runs.queue()
    without = [statements(verb, run_id) for verb in (runs.claim, runs.start, runs.complete)]
    add_budget(cast, limit_usd="1000")
    add_budget(cast, limit_usd="1000", trigger_id=runs.trigger_id)
    runs.ended()
    run_id = runs.queue()
    with_two = [statements(verb, run_id) for verb in (runs.claim, runs.start, runs.complete)]
    assert [b - a for a, b in zip(without, with_two, strict=True)] == [2, 0, 1]


def _owner(runs: Runs) -> Actor:
    return Actor("user", runs.cast.owner.id)


def test_a_poll_reads_one_window_of_each_budget_however_many_there_are(runs: Runs) -> None:
    """A budget of days has a window for each day of two years."""
    add_budget(runs.cast)
    runs.now = database_now()
    runs.ended()
    window = BudgetWindow.objects.get()
    days = {f"{side}_at": f"r.{side}_at - n * interval '1 day'" for side in ("starts", "ends")}
    copy_row(BudgetWindow, window.id, 700, **days)
    execute("ANALYZE budget_window", {})
    runs.queue()
    with explained(("WITH", "SELECT")) as plans:
        runs.polled()
    assert 0 < plans.rows_read("budget_window") < 20
