"""At which moments the incidents of budgets open and close. The clock is passed in."""

from decimal import Decimal

import pytest

from notices.budgets import find_reached_budgets
from notices.models import Incident
from pipedai.events import Actor
from testing.probes.plans import explained
from testing.world.budgets import add_budget
from testing.world.copied_rows import copy_row
from testing.world.many_triggers import add_triggers
from testing.world.runs import LOOK, Runs, allow
from triggers.budgets.services import BUDGETS
from triggers.models import Budget, BudgetWindow


@pytest.fixture
def runs(cast) -> Runs:
    allow(cast.worker.worker_id, 20)
    return Runs.of(cast)


def looked(runs: Runs) -> list[str]:
    """Looks as the scheduler does. Returns the messages of the open incidents, cut after the percentages."""
    find_reached_budgets(now=runs.now)
    rows = Incident.objects.filter(kind="budget_reached", closed_at__isnull=True)
    return [row.message.partition(" in the window")[0] for row in rows]


def audited(runs: Runs) -> list[tuple[str, bool | None]]:
    from audit.models import AuditEntry

    rows = AuditEntry.objects.filter(target_type="incident").order_by("created_at", "id")
    return [(row.action, row.metadata.get("recovered")) for row in rows]


def actor(runs: Runs) -> Actor:
    return Actor("user", runs.cast.owner.id)


def test_each_percentage_is_told_once(runs: Runs) -> None:
    add_budget(runs.cast, limit_usd="10")
    runs.ended(costUsd="7.99")
    assert looked(runs) == []
    runs.ended(costUsd="0.01")
    assert looked(runs) == ["$8.00 of $10.00 is spent"]
    runs.ended(costUsd="0.5")
    assert looked(runs) == ["$8.00 of $10.00 is spent"]
    runs.ended(costUsd="1.5")
    assert looked(runs) == ["$10.00 of $10.00 is spent"]
    assert audited(runs) == [
        ("incident.opened", None),
        ("incident.closed", False),
        ("incident.opened", None),
    ]


def test_when_no_run_has_room_the_limit_counts_as_reached(runs: Runs) -> None:
    budget = add_budget(runs.cast, limit_usd="10", reserve_usd="3")
    runs.ended(costUsd="7.5")
    assert looked(runs) == ["$7.50 of $10.00 is spent, and no run has room any more"]
    BUDGETS.update(budget.id, values={"reserve_usd": Decimal(1)}, actor=actor(runs))
    assert looked(runs) == []


def test_the_least_amount_is_of_the_budgets_own_trigger_or_of_the_cheapest_one(runs: Runs) -> None:
    runs.cast.add_trigger(max_cost_usd=Decimal(2))
    add_budget(runs.cast, trigger_id=runs.trigger_id, name="own", limit_usd="10", reserve_usd="3")
    add_budget(runs.cast, name="roomy", limit_usd="10", reserve_usd="3")
    add_budget(runs.cast, name="tight", limit_usd="9.4", reserve_usd="3")
    add_budget(runs.cast, name="of runs", limit_runs=9)
    runs.ended(costUsd="7.5")
    looked(runs)
    assert set(Incident.objects.values_list("subject_name", flat=True)) == {"own", "tight"}


def test_a_look_reads_the_triggers_of_an_environment_once_for_all_its_budgets(runs: Runs) -> None:
    add_triggers(runs.cast, 200)
    budget = add_budget(runs.cast, limit_usd="10")
    runs.ended(costUsd="1")
    copy_row(Budget, budget.id, 20, name="'budget ' || n")
    nth = "(SELECT id FROM budget WHERE name = 'budget ' || n)"
    copy_row(BudgetWindow, BudgetWindow.objects.get().id, 20, budget_id=nth)
    with explained("WITH looked_at") as plans:
        assert find_reached_budgets(now=runs.now) == 21
    assert plans.rows_read("trigger") < 400


def test_what_is_only_reserved_is_not_told(runs: Runs) -> None:
    add_budget(runs.cast, limit_usd="1")
    runs.claimed()
    assert looked(runs) == []


def test_the_number_of_runs_is_told_too(runs: Runs) -> None:
    add_budget(runs.cast, limit_runs=2, notice_at_pct=[50], when_reached="notify")
    runs.claimed()
    assert looked(runs) == ["1 of 2 runs have been claimed"]
    (incident,) = Incident.objects.all()
    assert (incident.subject_type, incident.subject_name) == ("budget", "Everything")
    assert incident.message.endswith("No run is held back.")


def test_a_run_that_looks_first_is_told_of_only_once_it_has_ended(runs: Runs) -> None:
    looking = Runs.of(runs.cast, before=LOOK)
    add_budget(runs.cast, limit_runs=2, notice_at_pct=[50], when_reached="notify")
    looking.take_features("before")
    run_id = looking.running()
    assert looked(looking) == []
    looking.complete(run_id)
    assert looked(looking) == ["1 of 2 runs have been claimed"]
    looking.quiet()
    assert looked(looking) == ["1 of 2 runs have been claimed"]


def test_the_end_of_the_window_is_a_recovery(runs: Runs) -> None:
    add_budget(runs.cast, limit_usd="1")
    runs.ended(costUsd="1")
    assert looked(runs) != []
    runs.wait(hours=12)
    assert looked(runs) == []
    assert audited(runs)[-1] == ("incident.closed", True)
    assert find_reached_budgets(now=runs.now) == 0


def test_raising_the_limit_is_a_recovery(runs: Runs) -> None:
    budget = add_budget(runs.cast, limit_usd="1")
    runs.ended(costUsd="1")
    assert looked(runs) != []
    BUDGETS.update(budget.id, values={"limit_usd": Decimal(10)}, actor=actor(runs))
    # The window of the tests' clock is over by the database's.
    BudgetWindow.objects.update(is_changed=True)
    assert looked(runs) == []
    assert audited(runs)[-1] == ("incident.closed", True)
    runs.ended(costUsd="8")
    assert looked(runs) == ["$9.00 of $10.00 is spent"]


@pytest.mark.parametrize(
    "change",
    [
        lambda budget, by: BUDGETS.delete(budget, actor=by),
        lambda budget, by: BUDGETS.update(budget, values={"period": "month"}, actor=by),
    ],
    ids=["deleted", "counts anew"],
)
def test_a_budget_that_is_not_watched_any_more_has_not_recovered(runs: Runs, change) -> None:
    budget = add_budget(runs.cast, limit_usd="1")
    runs.ended(costUsd="1")
    assert looked(runs) != []
    change(budget.id, actor(runs))
    assert looked(runs) == []
    assert audited(runs)[-1] == ("incident.closed", False)


def test_a_new_window_that_is_reached_at_once_has_its_own_incident(runs: Runs) -> None:
    add_budget(runs.cast, limit_usd="1")
    runs.ended(costUsd="1")
    assert looked(runs) != []
    runs.wait(hours=12)
    runs.ended(costUsd="0.8")
    assert looked(runs) == ["$0.80 of $1.00 is spent, and no run has room any more"]
    assert Incident.objects.count() == 2


def test_nothing_is_told_without_percentages(runs: Runs) -> None:
    add_budget(runs.cast, limit_usd="1", notice_at_pct=[])
    runs.ended(costUsd="1")
    assert looked(runs) == []


def test_a_former_window_that_is_seen_late_leaves_the_incident_of_the_present_one(runs) -> None:
    add_budget(runs.cast, limit_usd="1")
    runs.ended(costUsd="1")
    looked(runs)
    runs.wait(hours=12)
    runs.ended(costUsd="0.8")
    # So many windows are over that the scheduler does not find this one at its first look.
    former = BudgetWindow.objects.filter(noticed_pct=100)
    former_id = former.get().id
    former.update(noticed_pct=0)
    expected = ["$0.80 of $1.00 is spent, and no run has room any more"]
    assert looked(runs) == expected
    BudgetWindow.objects.filter(id=former_id).update(noticed_pct=100)
    assert looked(runs) == expected
    assert BudgetWindow.objects.get(noticed_pct__gt=0).id != former_id
