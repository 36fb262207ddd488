"""The admin pages of budgets show what is spent, reserved and left."""

from pipedai.admin.values import list_of, page_of
from pipedai.sql import database_now
from testing.world.budgets import add_budget
from testing.world.runs import Runs, allow
from triggers.models import Budget
from workspaces.models import Environment


def test_staff_see_what_is_spent_reserved_and_left(desk, cast):
    budget = add_budget(cast, limit_usd="10", name="Planted budget")
    free = add_budget(cast, limit_runs=5, trigger_id=cast.trigger_id, notice_at_pct=[])
    allow(cast.worker.worker_id, 5)
    runs = Runs(cast, cast.trigger_id, now=database_now())
    runs.ended(costUsd="2.5")
    runs.claimed()
    for page in (
        page_of(Budget, budget.id),
        list_of(Budget),
        page_of(Environment, cast.environment.id),
    ):
        shown = desk.get(page).content.decode()
        assert ">$2.50 spent, $1.00 reserved, $6.50 left<" in shown, page
        assert 'width="25.00" height="10" class="staff-bar-spent"' in shown
    shown = desk.get(page_of(Budget, free.id)).content.decode()
    assert "5 runs a day" in shown
    assert "$2.50 spent, $1.00 reserved" in shown
