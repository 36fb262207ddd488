"""However claims and ends of runs race on real connections, a budget is not overspent."""

from decimal import Decimal
from functools import partial
from itertools import cycle
from threading import Event

import pytest
from django.db import transaction

from notices.budgets import find_reached_budgets
from pipedai.api.errors import ApiError
from pipedai.events import SYSTEM, together
from testing.processes.racing import ROUNDS, Started, accepted, at_once
from testing.processes.worker_calls import WorkerCalls
from testing.world.budgets import add_budget, used
from testing.world.runs import Runs, allow
from triggers.budgets.services import BUDGETS
from triggers.models import BudgetWindow, Run, RunReservation, Trigger
from triggers.services import TRIGGERS


@pytest.fixture
def runs(committed_runs: Runs) -> Runs:
    allow(committed_runs.cast.worker.worker_id, 60)
    return committed_runs


def claims(runs: Runs, count: int, workers: int) -> list[partial]:
    """Queues runs for several workers, and returns the calls that claim them."""
    calls = []
    for n in range(workers):
        worker_id = runs.cast.register(f"racer-{n}", max_concurrency=20).worker_id
        of_worker = Runs.of(runs.cast, worker_id=worker_id)
        of_worker.now = runs.now
        queued = [of_worker.queue() for _ in range(count // workers)]
        calls += [partial(of_worker.claim, run_id, worker_id=worker_id) for run_id in queued]
    return calls


@pytest.mark.parametrize("round_", ROUNDS)
def test_of_twenty_claims_exactly_as_many_win_as_there_is_room_for(runs: Runs, round_) -> None:
    wide = add_budget(runs.cast, limit_usd="100")
    narrow = add_budget(runs.cast, limit_usd="7.5")
    answers = at_once(*claims(runs, 20, workers=5))
    refused = [answer for answer in answers if isinstance(answer, ApiError)]
    assert {answer.code for answer in refused} == {"budget_exhausted"}
    assert len(refused) == 13
    assert used(narrow) == used(wide) == ("0", "7", 7)
    assert Run.objects.filter(status="claimed").count() == 7
    # The first claims of the window made one row for each budget.
    assert BudgetWindow.objects.count() == 2


def test_claims_and_ends_that_cross_lose_no_cent(runs: Runs) -> None:
    budgets = [add_budget(runs.cast) for _ in range(3)]
    going = [runs.running() for _ in range(10)]
    ends = [partial(runs.complete, run_id, costUsd="0.1") for run_id in going]
    new = claims(runs, 10, workers=5)
    at_once(*(call for pair in zip(ends, new, strict=True) for call in pair))
    assert {used(budget) for budget in budgets} == {("1", "10", 20)}


def test_a_late_result_and_the_expiry_settle_a_run_once(runs: Runs) -> None:
    budget = add_budget(runs.cast)
    run_id = runs.running()
    runs.now = runs.stored(run_id)["lease_expires_at"]
    at_once(partial(runs.complete, run_id, costUsd="0.3"), runs.expire)
    assert used(budget) == ("0.3", "0", 1)


def test_a_claim_that_waited_for_a_window_sees_what_was_used_meanwhile(runs: Runs) -> None:
    budget = add_budget(runs.cast, limit_usd="2")
    runs.claimed()
    first, second = claims(runs, 2, workers=2)
    with transaction.atomic():
        first()
        waiting = Started(second)
        waiting.wait_until_blocked()
    answer = waiting.answer()
    assert isinstance(answer, ApiError)
    assert answer.code == "budget_exhausted"
    assert used(budget) == ("0", "2", 2)
    assert RunReservation.objects.count() == 2


def test_claims_and_changes_of_a_budget_do_not_deadlock(runs: Runs) -> None:
    budget = add_budget(runs.cast, limit_usd="100")
    add_budget(runs.cast, limit_usd="100")
    Trigger.objects.update(max_cost_usd=Decimal("0.5"))
    change = partial(BUDGETS.update, budget.id, actor=SYSTEM)
    changes = [
        partial(change, values={"limit_usd": Decimal(n), "timezone": zone})
        for n, zone in ((50, "Asia/Tokyo"), (60, "Europe/Berlin"), (70, "UTC"))
    ]
    accepted(at_once(*claims(runs, 20, workers=5), *changes))
    totals = BudgetWindow.objects.filter(budget=budget).values_list("runs", flat=True)
    assert sum(totals) == 20


def test_what_workers_are_told_is_what_is_reserved_while_the_trigger_changes(runs: Runs) -> None:
    add_budget(runs.cast)
    owner, path = runs.cast.client(runs.cast.owner), f"/api/v1/triggers/{runs.trigger_id}"
    worker = WorkerCalls(runs.cast.worker)
    Trigger.objects.update(max_cost_usd=Decimal(1))
    queued = [runs.queue() for _ in range(20)]
    told: dict[str, str] = {}
    claimed = Event()

    def change() -> None:
        for amount in cycle(("150", "1")):
            assert owner.patch(path, {"maxCostUsd": amount}).status_code == 200
            if claimed.is_set():
                return

    def claim() -> None:
        try:
            for n, run_id in enumerate(queued):
                if n % 4:
                    run = worker.claim_next(claimId=f"next-{n}").json()["run"]
                elif str(run_id) not in told:
                    run = worker.claim(run_id).json()
                told[run["id"]] = run["maxCostUsd"]
        finally:
            claimed.set()

    accepted(at_once(change, claim))
    reserved = RunReservation.objects.values_list("run_id", "amount_usd")
    assert told == {str(run_id): f"{amount.normalize():f}" for run_id, amount in reserved}


def test_ends_of_every_kind_and_all_who_lock_windows_do_not_deadlock(runs: Runs) -> None:
    budgets = [add_budget(runs.cast, limit_usd="40") for _ in range(3)]
    going = [runs.running() for _ in range(12)]
    new = claims(runs, 6, workers=3)
    runs.now = runs.stored(going[-1])["lease_expires_at"]
    late = [partial(runs.complete, run_id, costUsd="0.3") for run_id in going[::2]]
    change = partial(BUDGETS.update, budgets[1].id, actor=SYSTEM)
    look = partial(find_reached_budgets, now=runs.now)
    at_once(
        *late,
        *new,
        *(partial(runs.expire, limit=4) for _ in range(3)),
        *(look, look),
        *(partial(change, values={"limit_usd": Decimal(n)}) for n in (30, 35)),
    )
    while runs.expire():
        pass
    find_reached_budgets(now=runs.now)
    for budget in budgets:
        rows = RunReservation.objects.filter(window__budget=budget)
        taken = sum(row.amount_usd if row.cost_usd is None else row.cost_usd for row in rows)
        window = BudgetWindow.objects.get(budget=budget)
        assert window.spent_usd + window.reserved_usd == taken
        assert window.runs == len(rows)
        assert not rows.filter(settled_at=None, run__ended_at__isnull=False).exists()


def test_files_that_change_budgets_and_triggers_keep_no_end_of_a_run_waiting(runs: Runs) -> None:
    runs.ended()
    budgets = [add_budget(runs.cast) for _ in range(2)]
    run_id = runs.running()
    with transaction.atomic(), together():
        TRIGGERS.update(runs.trigger_id, values={"alert_after_failures": 2}, actor=SYSTEM)
        for budget in reversed(budgets):
            BUDGETS.update(budget.id, values={"limit_usd": Decimal(9)}, actor=SYSTEM)
        # If the changes kept this waiting, they would in turn wait for the trigger's health or for another window.
        accepted(at_once(partial(runs.complete, run_id, costUsd="0.3")))
    assert {used(budget) for budget in budgets} == {("0.3", "0", 1)}
