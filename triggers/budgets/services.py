"""Creates, changes and deletes budgets, and reads them with what their present windows have used."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django.db.models import F, FilteredRelation, Q, QuerySet
from django.db.models.functions import Now

from pipedai.api.errors import Invalid
from pipedai.events import Actor, Event
from pipedai.sql import execute
from triggers.budgets.spending import period_around, wake_held_back
from triggers.models import Budget, Trigger
from workspaces.resources import Resource

# What decides which runs a window counts. If one of these changes, the budget counts anew.
_COUNTED_BY = frozenset({"triggerId", "period", "timezone"})

# Makes the scheduler look again at those windows of budgets whose notices may have to change.
_LOOK_AGAIN = """
WITH found AS (
    SELECT id FROM budget_window
    WHERE budget_id = ANY(%(budget_ids)s) AND (noticed_pct > 0 OR ends_at > statement_timestamp())
    ORDER BY id FOR NO KEY UPDATE)
UPDATE budget_window w SET changes = w.changes + 1, is_changed = true FROM found WHERE w.id = found.id
"""


class Budgets(Resource[Budget]):
    """A new budget counts runs that are claimed from now on. Another trigger, period or time zone begins a new window;
    runs that were claimed before are settled in their old windows. Runs that a deleted budget held back can go out, and
    its reservations are still settled.
    """

    noun = "budget"
    model = Budget

    def apply(self, budget: Budget, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
        changes = super().apply(budget, values, actor)
        if "triggerId" in changes and budget.trigger_id is not None:
            triggers = Trigger.objects.filter(
                environment_id=budget.environment_id, deleted_at__isnull=True
            )
            if not triggers.filter(id=budget.trigger_id).exists():
                raise Invalid({"triggerId": ["No such trigger in this environment."]})
        if budget.limit_usd is None and budget.limit_runs is None:
            raise Invalid({"limitUsd": ["Give a limit in US dollars, a limit of runs, or both."]})
        if changes.keys() & _COUNTED_BY and not budget._state.adding:
            budget.generation += 1
        return changes


BUDGETS = Budgets()


def look_again(changed: Sequence[Event]) -> None:
    """Makes the scheduler and the waiting polls notice that budgets have changed or gone. It must be the last to take
    locks in the transaction.
    """
    execute(_LOOK_AGAIN, {"budget_ids": [event.target_id for event in changed]})
    wake_held_back({event.environment_id for event in changed if event.environment_id})


_SUMS = ("spent_usd", "reserved_usd", "notional_spent_usd", "notional_reserved_usd")
OF_WINDOW = ("starts_at", "ends_at", "runs", *_SUMS)


def with_present_window(rows: QuerySet[Budget, Any]) -> QuerySet[Budget, Any]:
    """Adds to each budget the columns that `with_sums` reads: `now`, and OF_WINDOW of its present window."""
    return rows.annotate(
        present=FilteredRelation(
            "windows",
            condition=Q(
                windows__generation=F("generation"),
                windows__starts_at__lte=Now(),
                windows__ends_at__gt=Now(),
            ),
        ),
        now=Now(),
        **{name: F(f"present__{name}") for name in OF_WINDOW},
    )


def with_sums(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the budget's columns, and of its present window `window`, `spent`, `reserved`, `notional`, `runs` and
    `remaining`. `spent` and `reserved` count against the limit, and `remaining` is what they leave: never below 0, and
    None without a limit. `notional` is what subscriptions paid for.
    """
    sums = {name: row[name] or Decimal(0) for name in _SUMS}
    if row["starts_at"] is None:
        begin, end = period_around(row["now"], row["period"], row["timezone"])
    else:
        begin, end = row["starts_at"], row["ends_at"]
    spent, reserved = sums["spent_usd"], sums["reserved_usd"]
    if not row["count_notional"]:
        spent -= sums["notional_spent_usd"]
        reserved -= sums["notional_reserved_usd"]
    limit = row["limit_usd"]
    return {
        **row,
        "window": {"starts_at": begin, "ends_at": end},
        "spent": spent,
        "reserved": reserved,
        "notional": sums["notional_spent_usd"],
        "runs": row["runs"] or 0,
        "remaining": None if limit is None else max(Decimal(0), limit - spent - reserved),
    }
