"""Old windows of budgets are removed once their runs are."""

from datetime import timedelta

from pipedai.retention import Order
from pipedai.sql import execute
from testing.world.budgets import add_budget
from testing.world.runs import Runs
from triggers.models import BudgetWindow
from triggers.ready import prune_windows


def pruned(runs: Runs, *, days: int = 10, dry_run: bool = False) -> int:
    order = Order(runs.now - timedelta(days=days), 10, dry_run)
    return sum(batch.removed for batch in prune_windows(order))


def test_an_old_window_goes_when_its_last_run_has_gone(runs: Runs) -> None:
    add_budget(runs.cast)
    runs.ended(costUsd="1")
    BudgetWindow.objects.update(is_changed=False)
    runs.wait(days=30)
    assert pruned(runs) == 0
    execute("DELETE FROM run_reservation", {})
    assert pruned(runs, days=40) == 0
    assert pruned(runs, dry_run=True) == pruned(runs) == 1
    assert not BudgetWindow.objects.exists()


def test_a_window_stays_until_the_scheduler_has_closed_its_notice(runs: Runs) -> None:
    add_budget(runs.cast)
    runs.ended(costUsd="1")
    execute("DELETE FROM run_reservation", {})
    runs.wait(days=30)
    assert pruned(runs) == 0
    BudgetWindow.objects.update(is_changed=False, noticed_pct=80)
    assert pruned(runs) == 0
